// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bundles src/ into one page without any reference to the network: `node build.js FILE`. It is the
// page with a place for its data, and beside it FILE.cpp, the same text for moat to write.
import { build } from 'esbuild';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2];
if (!target) {
    console.error('usage: node build.js FILE');
    process.exit(2);
}

const { outputFiles } = await build({
    entryPoints: [join(here, 'src/main.js')],
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    target: 'es2020',
    legalComments: 'none',
});

const drawn = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8')).dependencies;
const notice = Object.keys(drawn)
    .map((name) => {
        const folder = join(here, 'node_modules', name);
        const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
        return `${name} ${version}\n${readFileSync(join(folder, 'LICENSE'), 'utf8')}`;
    })
    .join('\n');

// What stands in a script element must not end it.
const inScript = (text) => text.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');

const page = readFileSync(join(here, 'src/page.html'), 'utf8')
    .replace('/*STYLE*/', () => readFileSync(join(here, 'src/style.css'), 'utf8'))
    .replace('/*NOTICE*/', () => notice.replaceAll('--', '- -'))
    .replace('/*PROGRAM*/', () => inScript(outputFiles[0].text));
writeFileSync(target, page);

const [before, after] = page.split('/*DATA*/');
const literal = (text) => `R"~page~(${text})~page~"`;
writeFileSync(`${target}.cpp`, `// Made by picture/build.js.
#include "command/picture/picture_page.hpp"
namespace moat::tools {
const std::string_view picture_before_data = ${literal(before)};
const std::string_view picture_after_data = ${literal(after)};
} // namespace moat::tools
`);
