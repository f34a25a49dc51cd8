// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What both views share: elements, the header, the theme and lists of choices.

/** element('button', { class: 'x', text: 'y', onclick: f }, child, ...) */
export function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        if (key === 'text') made.textContent = value;
        else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
        else if (value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
}

const root = document.documentElement;
const listeners = [];

/** The system's theme until the reader chooses the other. */
export function followTheme() {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    setTheme(dark.matches ? 'dark' : 'light');
    dark.addEventListener('change', () => setTheme(dark.matches ? 'dark' : 'light'));
}

function setTheme(theme) {
    root.dataset.theme = theme;
    listeners.forEach((each) => each());
}

export const onTheme = (listener) => listeners.push(listener);

/** The value of a colour in style.css. */
export const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

export function header(title, summary, ...controls) {
    const theme = element('button', {
        text: 'Light / dark',
        'aria-label': 'Change between light and dark',
        onclick: () => setTheme(root.dataset.theme === 'dark' ? 'light' : 'dark'),
    });
    return element('header', {}, element('h1', { text: title }),
        element('span', { class: 'summary', text: summary }), element('span', { class: 'spring' }),
        ...controls, theme);
}

/** choices: [{ text, class, choose }] */
export function choiceList(choices) {
    return element('ul', { class: 'choices' }, ...choices.map((each) => element('li', {},
        element('button', { class: each.class, text: each.text, onclick: each.choose }))));
}

export function keys(pairs) {
    const line = element('p', { class: 'legend' });
    for (const [key, meaning] of pairs)
        line.append(element('span', {}, element('kbd', { text: key }), ` ${meaning}`));
    return line;
}

/** Calls the handler of a pressed key, unless the reader is typing. */
export function onKeys(handlers) {
    addEventListener('keydown', (event) => {
        if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey)
            return;
        const handler = handlers[event.key];
        if (!handler) return;
        event.preventDefault();
        handler();
    });
}
