// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The device's address space as data: mappings in order of address, and what lies where and when.
// No drawing. Addresses are numbers for places and BigInt for text: places need 53 bits, text all.
import { bisector } from 'd3-array';

export const hex = (address) => `0x${address.toString(16)}`;

export function bytes(count) {
    const units = ['B', 'K', 'M', 'G', 'T', 'P'];
    let unit = 0;
    let value = Number(count);
    while (value >= 1024 && value % 1024 === 0 && unit < units.length - 1) {
        value /= 1024;
        unit += 1;
    }
    return `${value}${units[unit]}`;
}

export const nanoseconds = (time) =>
    time >= 1e9 ? `${(time / 1e9).toFixed(3)} s`
    : time >= 1e6 ? `${(time / 1e6).toFixed(3)} ms`
    : time >= 1e3 ? `${(time / 1e3).toFixed(3)} µs` : `${time} ns`;

function readMapping(row, strings, index) {
    const [start, size, before, after, mapped, unmapped, released, label, device, stack] = row;
    return {
        index, address: BigInt(start), start: Number(start), size, before, after, mapped,
        unmapped: unmapped < 0 ? Infinity : unmapped,
        released: released < 0 ? Infinity : released,
        label: strings[label], device: strings[device], stack: strings[stack],
        end: Number(start) + size,
    };
}

/** Return: the data of a page of kind "space", indexed for look-ups. */
export function readSpace(data) {
    const mappings = data.mappings.map((row, index) => readMapping(row, data.strings, index));
    const named = [...mappings]; // by their numbers in the data
    mappings.sort((a, b) => a.start - b.start || a.mapped - b.mapped);
    const faults = data.faults.map((each) => ({
        ...each, start: Number(each.address), address: BigInt(each.address),
        mapping: named[each.mapping] ?? null,
    }));
    const reserved = data.reserved.map((each) => ({
        ...each, address: BigInt(each.start), start: Number(each.start),
    }));
    return { ...data, mappings, faults, reserved, aperture: data.aperture.map(Number),
             reach: longestReach(mappings) };
}

/** How far before an address a mapping can begin and still touch it. */
const longestReach = (mappings) =>
    mappings.reduce((most, each) => Math.max(most, each.size + each.before + each.after), 0);

const byStart = bisector((each) => each.start);

/** Return: [first, end) of the mappings that may show between two addresses. */
export const between = (space, low, high) => [
    byStart.left(space.mappings, low - space.reach),
    byStart.right(space.mappings, high + space.reach),
];

/** What an address meant at a time: { kind, mapping }. The latest mapping there wins. */
export function whatIsAt(space, address, time) {
    const [first, end] = between(space, address, address);
    let found = null;
    for (let at = first; at < end; ++at) {
        const each = space.mappings[at];
        if (address < each.start - each.before || address >= each.end + each.after) continue;
        if (time < each.mapped || time > each.released) continue;
        if (found && found.mapping.mapped > each.mapped) continue;
        const inside = address >= each.start && address < each.end;
        found = { mapping: each,
                  kind: time > each.unmapped ? 'quarantine' : inside ? 'mapping' : 'guard' };
    }
    if (found) return found;
    const held = space.reserved.find((each) => address >= each.start && address < each.start + each.size);
    return held ? { kind: 'reserved', reserved: held } : null;
}

/** The nearest mappings on each side of a range that lived at a time: [below, above], either may be undefined. */
export function neighbours(space, low, high, time) {
    const live = (each) => each.mapped <= time && each.released >= time;
    const at = byStart.left(space.mappings, high);
    const above = space.mappings.slice(at).find(live);
    const below = space.mappings.slice(0, at).findLast((each) => each.end <= low && live(each));
    return [below, above];
}

/** Mappings whose label, device or address holds the text, at most so many. */
export function search(space, text, most) {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return [];
    const number = /^0x[0-9a-f]+$/.test(wanted) ? Number(wanted) : NaN;
    const found = [];
    for (const each of space.mappings) {
        if (found.length === most) break;
        if ((number >= each.start && number < each.end) || each.label.toLowerCase().includes(wanted) ||
            each.device.toLowerCase().includes(wanted))
            found.push(each);
    }
    return found;
}

export function describe(space, what) {
    if (!what) return 'nothing is mapped here';
    if (what.reserved) return `reserved: ${what.reserved.why}`;
    const { mapping, kind } = what;
    const life = mapping.unmapped === Infinity ? 'live'
        : `unmapped at ${nanoseconds(mapping.unmapped)}`;
    const where = `${hex(mapping.address)}, ${bytes(mapping.size)}`;
    const about = `"${mapping.label}" of ${mapping.device}\n${where}\nmapped at ${nanoseconds(mapping.mapped)}, ${life}`;
    return kind === 'mapping' ? about : `${kind} of ${about}`;
}
