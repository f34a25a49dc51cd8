// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A schedule as swim lanes: a column a thread, a row a step, walked with the arrow keys; the read
// that was stale and the write that made it so are marked and joined by a curve.
import { linkVertical } from 'd3-shape';
import { select } from 'd3-selection';
import { element, header, keys, onKeys, onTheme } from './page.js';

export function showSchedule(place, data) {
    const lanes = element('section', { class: 'lanes', tabindex: '0', 'aria-label': 'Schedule' });
    const panel = element('aside', { 'aria-live': 'polite' });
    const table = lanesTable(data);
    const arrows = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    lanes.append(table, arrows);
    place.append(header(data.title, `${data.steps.length} steps, ${data.threads.length} threads`),
        lanes, panel);
    let now = data.steps.length - 1;
    const go = (step) => {
        now = Math.max(0, Math.min(data.steps.length - 1, step));
        [...table.tBodies[0].rows].forEach((row, at) => {
            row.classList.toggle('later', at > now);
            row.classList.toggle('now', at === now);
        });
        table.tBodies[0].rows[now]?.scrollIntoView({ block: 'nearest' });
        [...arrows.children].forEach((each) => each.classList.toggle('later', each.dataset.to > now));
        showPanel(panel, data, now);
    };
    [...table.tBodies[0].rows].forEach((row, at) => row.addEventListener('click', () => go(at)));
    onKeys({
        ArrowDown: () => go(now + 1), ArrowUp: () => go(now - 1), j: () => go(now + 1),
        k: () => go(now - 1), Home: () => go(0), End: () => go(data.steps.length - 1),
    });
    const draw = () => drawArrows(arrows, lanes, table, data.stale);
    draw();
    go(now);
    onTheme(draw);
    addEventListener('resize', draw);
}

const marks = (stale) => stale
    ? { [stale.knew]: ['stale', 'the value it relies on'],
        [stale.changed]: ['cause', 'becomes stale here'],
        [stale.looked]: ['stale', 'used, or found changed, here'] }
    : {};

function lanesTable(data) {
    const body = element('tbody');
    const marked = marks(data.stale);
    data.steps.forEach((step, at) => {
        const [kind, note] = marked[at] ?? [];
        const row = element('tr', {}, element('td', { class: 'number', text: at }));
        data.threads.forEach((_, thread) => row.append(thread === step.thread
            ? element('td', { class: `step ${kind ?? ''}`, text: step.text }) : element('td')));
        row.append(element('td', { class: `note ${kind ?? ''}`, text: note ?? '' }));
        body.append(row);
    });
    const head = element('tr', {}, element('th', { text: '#' }),
        ...data.threads.map((name) => element('th', { text: name })), element('th'));
    return element('table', {}, element('thead', {}, head), body);
}

function drawArrows(svg, lanes, table, stale) {
    const curves = stale ? [[stale.knew, stale.changed, '--stale'], [stale.changed, stale.looked, '--cause']] : [];
    const origin = lanes.getBoundingClientRect();
    const end = (at, edge) => {
        const box = table.tBodies[0].rows[at].querySelector('.step').getBoundingClientRect();
        return [box.left + box.width / 2 - origin.left + lanes.scrollLeft,
                box[edge] - origin.top + lanes.scrollTop];
    };
    select(svg).attr('width', lanes.scrollWidth).attr('height', lanes.scrollHeight)
        .selectAll('path').data(curves).join('path')
        .attr('fill', 'none').attr('stroke-width', 2)
        .attr('stroke', ([, , paint]) => `var(${paint})`).attr('data-to', ([, to]) => to)
        .attr('d', ([from, to]) => linkVertical()({ source: end(from, 'bottom'), target: end(to, 'top') }));
}

function showPanel(panel, data, now) {
    const step = data.steps[now];
    panel.replaceChildren();
    if (data.violation)
        panel.append(element('h2', { text: 'Violation' }), element('p', { class: 'verdict',
            text: `${data.violation.kind} in ${data.violation.thread}: ${data.violation.text}` }));
    if (step)
        panel.append(element('h2', { text: `Step ${now}` }),
            element('pre', { text: `${data.threads[step.thread]}\n${step.text}` }));
    panel.append(element('h2', { text: 'Claim' }), element('p', { text: data.claim }),
        element('h2', { text: 'Schedule' }), element('pre', { text: data.schedule }),
        element('h2', { text: 'Replay file' }), element('pre', { text: data.replay }),
        keys([['↓ ↑', 'next, previous step'], ['Home', 'first step'], ['End', 'last step']]));
}
