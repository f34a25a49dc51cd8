// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The address space as a chart: addresses from left to right, to scale; time from top to bottom. A
// mapping is a block as wide as it is long and as high as it lived; a fault is a mark where and when.
import { scaleLinear } from 'd3-scale';
import { select } from 'd3-selection';
import { zoom, zoomIdentity } from 'd3-zoom';
import { choiceList, colour, element, header, keys, onKeys, onTheme } from './page.js';
import { between, bytes, describe, hex, nanoseconds, neighbours, search, whatIsAt } from './space.js';

const top = 44; // pixels for the axis of addresses
const left = 76; // and for that of time
const paints = ['mapping', 'mapping-ink', 'guard', 'quarantine', 'reserved', 'fault', 'ink', 'faint',
    'line', 'chosen', 'ground'];

export function showSpace(place, space) {
    const chart = element('section', { class: 'chart', 'aria-label': 'Address space' });
    const canvas = element('canvas', { tabindex: '0', role: 'img',
        'aria-label': `${space.mappings.length} mappings and ${space.faults.length} faults` });
    const tip = element('div', { class: 'tip', hidden: '' });
    const panel = element('aside', { 'aria-live': 'polite' });
    const find = element('input', { type: 'search', placeholder: 'Label, device or address',
        'aria-label': 'Find a mapping' });
    chart.append(canvas, tip);
    place.append(header(space.title, summary(space), find), chart, panel);
    const view = new SpaceView(space, canvas);
    view.onShown = (what) => showPanel(panel, space, view, what);
    find.addEventListener('input', () => showFound(panel, space, view, find.value));
    find.addEventListener('keydown', (event) => {
        const first = event.key === 'Enter' && search(space, find.value, 1)[0];
        if (first) view.showMapping(first);
    });
    canvas.addEventListener('pointermove', (event) => showTip(tip, space, view, event));
    canvas.addEventListener('pointerleave', () => { tip.hidden = true; });
    canvas.addEventListener('click', (event) => view.chooseAt(event.offsetX, event.offsetY));
    onKeys({
        '/': () => find.focus(), n: () => view.nextFault(1), p: () => view.nextFault(-1),
        '+': () => view.scaleBy(2), '=': () => view.scaleBy(2), '-': () => view.scaleBy(0.5),
        ArrowLeft: () => view.moveBy(-0.2), ArrowRight: () => view.moveBy(0.2),
        ArrowUp: () => view.moveInTime(-0.2), ArrowDown: () => view.moveInTime(0.2),
        '[': () => view.scaleTime(2), ']': () => view.scaleTime(0.5),
        0: () => view.showAll(), Home: () => view.showUsed(),
    });
    view.start();
    if (space.faults.length) view.showFault(space.faults[0]);
    else showPanel(panel, space, view, null);
}

const summary = (space) =>
    `${space.mappings.length.toLocaleString('en')} mappings, ${space.faults.length} ` +
    `${space.faults.length === 1 ? 'fault' : 'faults'}`;

class SpaceView {
    constructor(space, canvas) {
        this.space = space;
        this.canvas = canvas;
        this.context = canvas.getContext('2d');
        this.chosen = null;
        this.fault = -1;
        this.onShown = () => {};
        this.addresses = scaleLinear().domain(space.aperture);
        this.times = scaleLinear().domain([0, Math.max(1, space.end)]);
        this.behaviour = zoom().scaleExtent([1, 2 ** 46]).on('zoom', (event) => {
            this.transform = event.transform;
            this.redraw();
        });
    }

    start() {
        this.paint = readPaints(this.context);
        onTheme(() => { this.paint = readPaints(this.context); this.redraw(); });
        new ResizeObserver(() => this.resize()).observe(this.canvas);
        this.resize();
        select(this.canvas).call(this.behaviour).on('dblclick.zoom', null);
        this.showUsed();
    }

    resize() {
        const ratio = devicePixelRatio;
        this.width = this.canvas.clientWidth;
        this.height = this.canvas.clientHeight;
        this.canvas.width = this.width * ratio;
        this.canvas.height = this.height * ratio;
        this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
        this.addresses.range([left, this.width]);
        this.times.range([top, this.height - 8]);
        const corners = [[left, 0], [this.width, this.height]];
        this.behaviour.extent(corners).translateExtent(corners);
        this.redraw();
    }

    redraw() {
        if (this.waiting || !this.width) return;
        this.waiting = requestAnimationFrame(() => {
            this.waiting = 0;
            this.draw();
        });
    }

    get shown() {
        return (this.transform ?? zoomIdentity).rescaleX(this.addresses);
    }

    draw() {
        const { context, paint } = this;
        const x = this.shown;
        this.blocks = 0;
        context.fillStyle = paint.ground;
        context.fillRect(0, 0, this.width, this.height);
        context.save();
        context.beginPath();
        context.rect(left, top, this.width - left, this.height - top);
        context.clip();
        this.drawReserved(x);
        this.drawMappings(x);
        this.drawFaults(x);
        context.restore();
        this.drawAddresses(x);
        this.drawTimes();
        const { dataset } = this.canvas; // for those who cannot see: tests
        dataset.frames = Number(dataset.frames ?? 0) + 1;
        dataset.blocks = this.blocks;
        dataset.view = x.domain().join(' ');
    }

    drawReserved(x) {
        this.context.fillStyle = this.paint.reserved;
        for (const each of this.space.reserved)
            this.block(x(each.start), x(each.start + each.size), top, this.height);
    }

    // Blocks narrower than a pixel that follow each other in a column are drawn once.
    drawMappings(x) {
        const [low, high] = x.domain();
        const [first, end] = between(this.space, low, high);
        let drawnTo = -1;
        for (let at = first; at < end; ++at) {
            const each = this.space.mappings[at];
            const right = x(each.end + each.after);
            if (right < drawnTo + 1 && each !== this.chosen && right - x(each.start) < 1) continue;
            this.drawMapping(x, each);
            drawnTo = Math.max(left, right);
        }
        if (this.chosen) this.drawMapping(x, this.chosen);
    }

    drawMapping(x, each) {
        const { context, paint, times } = this;
        const born = times(each.mapped);
        const died = Math.max(born + 2, times(Math.min(each.unmapped, this.space.end)));
        const gone = Math.max(died, times(Math.min(each.released, this.space.end)));
        context.fillStyle = paint.guard;
        this.block(x(each.start - each.before), x(each.start), born, gone);
        this.block(x(each.end), x(each.end + each.after), born, gone);
        context.fillStyle = paint.mapping;
        this.block(x(each.start), x(each.end), born, died);
        if (gone > died) {
            context.fillStyle = paint.quarantine;
            this.block(x(each.start), x(each.end), died, gone);
        }
        if (each === this.chosen) {
            context.strokeStyle = paint.chosen;
            context.lineWidth = 2;
            context.strokeRect(x(each.start), born, Math.max(2, x(each.end) - x(each.start)), died - born);
        }
        this.drawLabel(x, each, born, died);
    }

    drawLabel(x, each, began, died) {
        const born = Math.max(began, top);
        const from = Math.max(left, x(each.start));
        const room = Math.min(this.width, x(each.end)) - from;
        if (room < 40 || died - born < 16) return;
        const { context } = this;
        context.save();
        context.beginPath();
        context.rect(from, born, room, died - born);
        context.clip();
        context.fillStyle = this.paint['mapping-ink'];
        context.font = '12px system-ui, sans-serif';
        context.fillText(each.label, from + 6, born + 14);
        if (died - born > 32) context.fillText(bytes(each.size), from + 6, born + 29);
        context.restore();
    }

    block(from, to, above, below) {
        if (to <= from || to < left || from > this.width) return;
        this.blocks += 1;
        const start = Math.max(from, left - 1);
        this.context.fillRect(start, above, Math.max(0.6, Math.min(to, this.width + 1) - start), below - above);
    }

    drawFaults(x) {
        const { context, paint } = this;
        this.space.faults.forEach((each, index) => {
            const from = x(each.start);
            const to = Math.max(from + 3, x(each.start + each.size));
            if (to < left || from > this.width) return;
            const y = this.times(each.time);
            context.fillStyle = paint.fault;
            context.fillRect(Math.max(from, left), y - 3, Math.min(to, this.width) - Math.max(from, left), 6);
            context.beginPath();
            context.arc(Math.max(from, left), y, index === this.fault ? 8 : 5, 0, 2 * Math.PI);
            context.fill();
        });
    }

    drawAddresses(x) {
        const { context, paint } = this;
        const [low, high] = x.domain();
        const step = niceStep((high - low) / Math.max(2, this.width / 130));
        context.font = '12px ui-monospace, monospace';
        for (let at = Math.ceil(low / step) * step; at <= high; at += step) {
            context.fillStyle = paint.faint;
            context.fillText(hex(BigInt(at)), x(at) + 4, 18);
            context.fillStyle = paint.line;
            context.fillRect(x(at), 6, 1, top - 10);
        }
        context.fillStyle = paint.faint;
        context.font = '11px system-ui, sans-serif';
        context.fillText(`about ${bytes(2 ** Math.round(Math.log2(high - low)))} in view`, left + 4, 36);
    }

    drawTimes() {
        const { context, paint, times } = this;
        context.font = '11px system-ui, sans-serif';
        for (const at of times.ticks(6)) {
            context.fillStyle = paint.faint;
            context.fillText(nanoseconds(at), 6, times(at) + 4);
            context.fillStyle = paint.line;
            context.fillRect(left - 6, times(at), 6, 1);
        }
    }

    at(pixelX, pixelY) {
        return { address: this.shown.invert(pixelX), time: this.times.invert(pixelY) };
    }

    faultAt(pixelX, pixelY) {
        const x = this.shown;
        return this.space.faults.findIndex((each) =>
            pixelX >= x(each.start) - 8 && pixelX <= Math.max(x(each.start) + 8, x(each.start + each.size)) &&
            Math.abs(this.times(each.time) - pixelY) <= 8);
    }

    chooseAt(pixelX, pixelY) {
        this.fault = this.faultAt(pixelX, pixelY);
        if (this.fault >= 0) return this.choose(this.space.faults[this.fault]);
        const { address, time } = this.at(pixelX, pixelY);
        return this.choose(whatIsAt(this.space, address, time)?.mapping ?? null);
    }

    choose(what) {
        this.chosen = what?.report !== undefined ? what.mapping : what;
        this.onShown(what);
        this.redraw();
    }

    showRange(low, high) {
        const [first, last] = this.addresses.domain();
        const k = Math.min((last - first) / Math.max(high - low, 1), 2 ** 46);
        const transform = zoomIdentity.translate(left, 0).scale(k)
            .translate(-this.addresses(low), 0);
        select(this.canvas).call(this.behaviour.transform, transform);
    }

    showTimes(from, to) {
        const margin = Math.max(1, (to - from) * 0.2);
        this.times.domain([Math.max(0, from - margin), Math.min(this.space.end, to + margin)]);
    }

    showAllTime() { this.times.domain([0, Math.max(1, this.space.end)]); }

    scaleTime(factor) {
        const [from, to] = this.times.domain();
        const middle = (from + to) / 2;
        const half = Math.min(this.space.end, Math.max(2, (to - from) * factor)) / 2;
        this.times.domain([Math.max(0, middle - half), Math.max(middle + half, half * 2)]);
        this.redraw();
    }

    moveInTime(share) {
        const [from, to] = this.times.domain();
        const by = Math.max(-from, Math.min((to - from) * share, this.space.end - to));
        this.times.domain([from + by, to + by]);
        this.redraw();
    }

    showMapping(each) {
        const around = each.size + each.before + each.after;
        this.showTimes(each.mapped, Math.min(each.released, this.space.end));
        this.showRange(each.start - 2 * around, each.end + 2 * around);
        this.choose(each);
    }

    showFault(each) {
        this.fault = this.space.faults.indexOf(each);
        const near = each.mapping ?? { start: each.start, end: each.start + each.size };
        const low = Math.min(near.start, each.start);
        const high = Math.max(near.end, each.start + each.size);
        const time = Math.min(each.time, near.unmapped ?? each.time); // a fault may be read after the unmap
        const [below, above] = neighbours(this.space, low, high, time);
        const from = below?.start ?? low - (high - low);
        const to = above?.end ?? high + (high - low);
        const margin = (to - from) * 0.05;
        this.showTimes(Math.min(near.mapped ?? each.time, each.time), each.time);
        this.showRange(from - margin, to + margin);
        this.choose(each);
    }

    nextFault(step) {
        const { faults } = this.space;
        if (faults.length) this.showFault(faults[(this.fault + step + faults.length) % faults.length]);
    }

    showAll() {
        this.showAllTime();
        this.showRange(...this.addresses.domain());
    }

    showUsed() {
        this.showAllTime();
        const { mappings, faults } = this.space;
        const lows = [mappings[0], faults[0]].filter(Boolean).map((each) => each.start);
        if (!lows.length) return this.showAll();
        const high = mappings.reduce((most, each) => Math.max(most, each.end + each.after), lows[0] + 1);
        const low = Math.min(...lows);
        return this.showRange(low - (high - low) * 0.05, high + (high - low) * 0.05);
    }

    scaleBy(factor) { select(this.canvas).call(this.behaviour.scaleBy, factor); }

    moveBy(share) {
        const [low, high] = this.shown.domain();
        const by = (high - low) * share;
        this.showRange(low + by, high + by);
    }
}

function readPaints(context) {
    const read = Object.fromEntries(paints.map((name) => [name, colour(name)]));
    return { ...read, guard: hatch(context, read.guard, read.ground) };
}

// What is kept empty on purpose looks neither full nor free.
function hatch(context, stroke, ground) {
    const tile = element('canvas', { width: 8, height: 8 });
    const pen = tile.getContext('2d');
    pen.fillStyle = ground;
    pen.fillRect(0, 0, 8, 8);
    pen.strokeStyle = stroke;
    pen.lineWidth = 1.5;
    for (const shift of [-8, 0, 8]) {
        pen.moveTo(shift, 8);
        pen.lineTo(shift + 8, 0);
    }
    pen.stroke();
    return context.createPattern(tile, 'repeat');
}

// Addresses are read in powers of two.
const niceStep = (wanted) => 2 ** Math.max(0, Math.ceil(Math.log2(wanted)));

function showTip(tip, space, view, event) {
    const { offsetX, offsetY } = event;
    tip.hidden = offsetX < left || offsetY < top;
    if (tip.hidden) return;
    const { address, time } = view.at(offsetX, offsetY);
    const fault = space.faults[view.faultAt(offsetX, offsetY)];
    const where = hex(BigInt(Math.max(0, Math.floor(address))));
    tip.textContent = fault ? `fault: ${faultLine(fault)}`
        : `${where}\n${describe(space, whatIsAt(space, address, time))}`;
    tip.style.left = `${Math.min(offsetX + 14, view.width - 240)}px`;
    tip.style.top = `${Math.min(offsetY + 14, view.height - 90)}px`;
}

const faultLine = (each) =>
    `${each.access}${each.size > 1 ? ` of ${bytes(each.size)}` : ''} at ${hex(each.address)} by ${each.device}`;

function showPanel(panel, space, view, what) {
    panel.replaceChildren(element('h2', { text: 'Faults' }));
    if (space.faults.length)
        panel.append(choiceList(space.faults.slice(0, 200).map((each) => ({
            text: faultLine(each), class: 'fault', choose: () => view.showFault(each) }))));
    else panel.append(element('p', { class: 'summary', text: 'None' }));
    if (what?.report !== undefined)
        panel.append(element('h2', { text: 'Report' }), element('pre', { class: 'report', tabindex: '0', text: what.report }));
    else if (what)
        panel.append(element('h2', { text: 'Mapping' }),
            element('pre', { text: describe(space, { kind: 'mapping', mapping: what }) }),
            ...(what.stack ? [element('h2', { text: 'Mapped by' }), element('pre', { text: what.stack })] : []));
    panel.append(element('h2', { text: 'Legend' }), legend(), keys([
        ['/', 'find'], ['n', 'next fault'], ['p', 'previous fault'], ['+', 'zoom in'], ['-', 'zoom out'],
        ['← →', 'move'], ['↑ ↓', 'move in time'], ['[ ]', 'zoom time'], ['Home', 'all mappings'], ['0', 'whole space']]));
}

function legend() {
    const line = element('p', { class: 'legend' });
    for (const kind of ['mapping', 'guard', 'quarantine', 'reserved', 'fault'])
        line.append(element('span', {}, element('i', { style: `background: var(--${kind})` }), kind));
    return line;
}

function showFound(panel, space, view, text) {
    const found = search(space, text, 50);
    panel.replaceChildren(element('h2', { text: `Found${found.length === 50 ? ' (the first 50)' : ''}` }));
    panel.append(found.length
        ? choiceList(found.map((each) => ({
            text: `${each.label}  ${hex(each.address)}  ${bytes(each.size)}`,
            choose: () => view.showMapping(each) })))
        : element('p', { class: 'summary', text: 'No matches' }));
}
