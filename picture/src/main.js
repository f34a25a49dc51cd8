// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reads the data in the page and shows the view of its kind. docs/picture.md has the format.
import { showSchedule } from './schedule_view.js';
import { readSpace } from './space.js';
import { showSpace } from './space_view.js';
import { element, followTheme } from './page.js';

const views = {
    space: (place, data) => showSpace(place, readSpace(data)),
    schedule: showSchedule,
};

const place = document.getElementById('picture');
const data = JSON.parse(document.getElementById('data').textContent);
document.title = `moat: ${data.title}`;
followTheme();
if (views[data.kind]) views[data.kind](place, data);
else place.append(element('p', { text: `This page cannot show "${data.kind}".` }));
