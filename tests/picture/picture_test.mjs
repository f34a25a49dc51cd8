// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The picture in a browser without a screen: it opens, fetches nothing, zooms, finds a mapping by its
// label and shows the fault; with 10 mappings and with 100,000; and what moat itself writes.
//     node picture_test.mjs PAGE BROWSER NODE_MODULES_FOLDER MOAT
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const [pageFile, browserFile, modules, moat] = process.argv.slice(2);
const { chromium } = createRequire(join(resolve(modules), 'package.json'))('playwright-core');
const folder = mkdtempSync(join(tmpdir(), 'moat-picture-'));

function write(name, data) {
    const file = join(folder, `${name}.html`);
    const text = JSON.stringify(data).replaceAll('<', '\\u003c');
    writeFileSync(file, readFileSync(pageFile, 'utf8').replace('/*DATA*/', () => text));
    return pathToFileURL(file).href;
}

/** `count` buffers of a page or two with a guard after each; the last one is overrun. */
function space(count) {
    const mappings = [];
    let start = 0x10000;
    for (let at = 0; at < count; ++at) {
        const size = 4096 * (1 + (at % 2));
        const unmapped = at % 3 === 1 ? at * 10 + 500 : -1;
        mappings.push([start, size, 0, 4096, at * 10, unmapped, unmapped < 0 ? -1 : unmapped + 300,
            at === count - 1 ? 1 : 0, 2, 3]);
        start += size + 4096;
    }
    const last = mappings[count - 1];
    return { moat: 1, kind: 'space', title: 'a test', page: 4096, end: count * 10 + 2000,
        aperture: ['0x1000', '0x1000000000000'], mappings,
        strings: ['data <buffer>', 'the short one', 'nvme', 'main at driver.cpp:3'],
        reserved: [{ start: '0xfee00000', size: 1 << 20, why: 'interrupts' }],
        faults: [{ address: last[0] + last[1], size: 64, access: 'write', device: 'nvme',
            time: count * 10 + 100, mapping: count - 1, report: '64 bytes past "the short one"' }] };
}

const schedule = { moat: 1, kind: 'schedule', title: 'pud-slot old', claim: 'refuted', schedule: 'W2 F1 W1',
    replay: 'the replay file', threads: ['walker', 'faulter'],
    steps: [{ thread: 0, text: 'load pud = LEAF' }, { thread: 0, text: 'store pud := NONE' },
        { thread: 1, text: 'store pud := LEAF' }, { thread: 0, text: 'load pud = LEAF' }],
    stale: { knew: 1, changed: 2, looked: 3 },
    violation: { thread: 'walker', kind: 'check', text: 'not a table' } };

const browser = await chromium.launch({ executablePath: browserFile, args: ['--no-sandbox'] });

async function open(url, colorScheme = 'light') {
    const page = await browser.newPage({ viewport: { width: 1280, height: 720 }, colorScheme });
    const wrong = [];
    page.on('pageerror', (error) => wrong.push(error.message));
    page.on('console', (message) => message.type() === 'error' && wrong.push(message.text()));
    page.on('request', (request) => request.url().startsWith('http') && wrong.push(request.url()));
    await page.goto(url);
    return { page, wrong };
}

const view = async (page) => (await page.locator('canvas').getAttribute('data-view')).split(' ').map(Number);

/** Presses and waits for what it changes to be drawn. */
async function press(page, key) {
    const frames = Number(await page.locator('canvas').getAttribute('data-frames'));
    await page.keyboard.press(key);
    await page.waitForFunction(
        (before) => Number(document.querySelector('canvas').dataset.frames) > before, frames);
}

async function testSpace(count) {
    const data = space(count);
    const { page, wrong } = await open(write(`space${count}`, data));
    const text = () => page.locator('aside').innerText();
    assert.match(await text(), /64 bytes past "the short one"/, 'it opens at the fault and its report');

    await press(page, 'Home');
    const [low, high] = await view(page);
    const first = data.mappings[0][0];
    const last = data.mappings[count - 1];
    assert.ok(low <= first && high >= last[0] + last[1], 'Home shows every mapping');
    const blocks = Number(await page.locator('canvas').getAttribute('data-blocks'));
    assert.ok(blocks >= Math.min(count, 100) && blocks <= 8 * 1280,
        `a frame draws no more than the screen can show: ${blocks} blocks`);

    await press(page, '+');
    const [closerLow, closerHigh] = await view(page);
    assert.ok(Math.abs((closerHigh - closerLow) / (high - low) - 0.5) < 0.01, '+ shows half as much');
    await press(page, 'ArrowRight');
    assert.ok((await view(page))[0] > closerLow, 'an arrow moves');

    await page.keyboard.press('/');
    await page.keyboard.type('short');
    assert.match(await text(), /the short one\s+0x/, 'found by its label');
    await press(page, 'Enter');
    await page.waitForFunction(() => /mapped at/.test(document.querySelector('aside').innerText));
    const [foundLow, foundHigh] = await view(page);
    assert.ok(foundLow <= last[0] && foundHigh >= last[0] + last[1] && foundHigh - foundLow < 100 * last[1],
        'and shown closely');
    assert.match(await text(), /main at driver\.cpp:3/, 'with who mapped it');

    const box = await page.locator('canvas').boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height - 30);
    assert.match(await page.locator('.tip').innerText(), /the short one/, 'hovering says what lies there');

    const frame = await page.evaluate(async () => {
        const times = [];
        for (let turn = 0; turn < 21; ++turn) {
            dispatchEvent(new KeyboardEvent('keydown', { key: turn % 2 ? '+' : '-' }));
            const began = performance.now();
            await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
            times.push(performance.now() - began);
        }
        return times.sort((a, b) => a - b)[10];
    });
    console.log(`${count} mappings: ${blocks} blocks at most in a frame; two frames take ${frame.toFixed(1)} ms`);
    assert.deepEqual(wrong, [], 'no error, nothing fetched');
    await page.close();
}

/** A fault in the middle of others, with a report of long lines. */
async function testFirstView() {
    const data = space(10);
    const [below, hit, above] = data.mappings.slice(3, 6);
    const report = `|${'.'.repeat(100)}|\n${' '.repeat(90)}^^^`;
    data.faults = [{ ...data.faults[0], address: hit[0] + hit[1], mapping: 4, time: 200, report }];
    const { page, wrong } = await open(write('first', data));
    const [low, high] = await view(page);
    assert.ok(low <= below[0] && high >= above[0] + above[1], 'the first view holds both neighbours');
    assert.ok(high - low < 4 * (above[0] + above[1] - below[0]), 'and not much more');
    const pane = await page.locator('pre.report').evaluate((pre) => ({
        lines: Math.round(pre.clientHeight / parseFloat(getComputedStyle(pre).lineHeight)),
        scrolls: pre.scrollWidth > pre.clientWidth,
        aside: pre.parentElement.scrollWidth <= pre.parentElement.clientWidth }));
    assert.deepEqual(pane, { lines: 2, scrolls: true, aside: true }, 'the report scrolls, no line breaks');
    assert.deepEqual(wrong, []);
    await page.close();
}

async function testSchedule() {
    const { page, wrong } = await open(write('schedule', schedule), 'dark');
    assert.match(await page.locator('aside').innerText(), /not a table/);
    assert.equal(await page.locator('svg path').count(), 2, 'the stale read is joined to its cause');
    assert.equal(await page.locator('td.cause.step').innerText(), 'store pud := LEAF');
    await page.keyboard.press('Home');
    assert.equal(await page.locator('tr.later').count(), 3, 'at the first step the others are to come');
    await page.keyboard.press('ArrowDown');
    assert.match(await page.locator('tr.now').innerText(), /store pud := NONE/);
    assert.equal(await page.locator('html').getAttribute('data-theme'), 'dark');
    await page.getByRole('button', { name: 'Change between light and dark' }).click();
    assert.equal(await page.locator('html').getAttribute('data-theme'), 'light');
    assert.deepEqual(wrong, []);
    await page.close();
}

async function testWhatMoatWrites() {
    const file = join(folder, 'race.html');
    const { status } = spawnSync(moat, ['explore', 'pud-slot', '--variant', 'old', '--html', file]);
    assert.equal(status, 1, 'the race is found');
    const { page, wrong } = await open(pathToFileURL(file).href);
    assert.match(await page.locator('aside').innerText(), /something that is not a table/);
    assert.match(await page.locator('td.cause.step').innerText(), /PUD LEAF special/);
    assert.deepEqual(wrong, []);
    await page.close();
}

async function testWhatAnAuditWrites() {
    const file = join(folder, 'audit.html');
    const { status } = spawnSync(moat, ['audit', '--device', 'nvme', '--inject', 'overrun', '--case', '8',
        '--html', file]);
    assert.equal(status, 1, 'the overrun is found');
    const { page, wrong } = await open(pathToFileURL(file).href);
    assert.match(await page.locator('aside').innerText(), /wrote-outside, case 8/);
    assert.deepEqual(wrong, []);
    await page.close();
}

async function testWhatARecordingShows() {
    const file = join(folder, 'recording.html');
    const recording = fileURLToPath(new URL('../watch/data/edu_strays.rec', import.meta.url));
    const { status } = spawnSync(moat, ['replay', recording, '--html', file]);
    assert.equal(status, 1, 'the faults are found');
    const { page, wrong } = await open(pathToFileURL(file).href);
    assert.match(await page.locator('aside').innerText(), /dma-buffer-overflow/);
    assert.deepEqual(wrong, []);
    await page.close();
}

try {
    await testWhatMoatWrites();
    await testWhatARecordingShows();
    await testWhatAnAuditWrites();
    await testFirstView();
    await testSpace(10);
    await testSpace(100_000);
    await testSchedule();
} finally {
    await browser.close();
    rmSync(folder, { recursive: true });
}
