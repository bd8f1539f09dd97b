/**
 * The last step of the build: compresses every file beside itself (`.gz`, which the server sends as it is)
 * and fails when what a first visit loads is over budget.
 */
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const BUDGET_BYTES = 200_000;
const root = fileURLToPath(new URL("../../src/ringmain/serve/static", import.meta.url));

function* files(folder) {
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) yield* files(path);
    else if (!name.endsWith(".gz")) yield path;
  }
}

let total = 0;
for (const path of files(root)) {
  const packed = gzipSync(readFileSync(path), { level: 9 });
  writeFileSync(`${path}.gz`, packed);
  total += packed.length;
  console.log(`${String(packed.length).padStart(8)} B gzip  ${relative(root, path)}`);
}
console.log(`${String(total).padStart(8)} B gzip  in all, of ${BUDGET_BYTES}`);

const inline = /<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=/i.exec(readFileSync(join(root, "index.html"), "utf8"));
if (inline) {
  console.error(`index.html: expected nothing inline (the content security policy refuses it), found ${JSON.stringify(inline[0])}`);
  process.exit(1);
}
if (total >= BUDGET_BYTES) {
  console.error(`The page is over its budget: expected under ${BUDGET_BYTES} bytes gzip, got ${total}. Split or drop code.`);
  process.exit(1);
}
