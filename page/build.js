// Bundles the page into the package: `make page`. Users of refold need none of this.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const OUT = "../refold/ui/page";
const PARTS = ["preact", "@preact/signals", "@preact/signals-core", "htm", "uplot"];

// tests/test_ui.py makes the same digest: a bundle of other sources is found.
const digest = createHash("sha256");
for (const name of readdirSync("src").sort()) digest.update(readFileSync(`src/${name}`));

mkdirSync(OUT, { recursive: true });
await build({
  entryPoints: { page: "src/main.js" },
  outdir: OUT,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  banner: { js: `/* licences: LICENSES.txt; sources ${digest.digest("hex")} */` },
});
copyFileSync("src/index.html", `${OUT}/index.html`);
copyFileSync("src/icon.svg", `${OUT}/icon.svg`);
const licences = PARTS.map((part) => {
  const { version } = JSON.parse(readFileSync(`node_modules/${part}/package.json`));
  return `${part} ${version}\n\n${readFileSync(`node_modules/${part}/LICENSE`, "utf8").trim()}\n`;
});
writeFileSync(`${OUT}/LICENSES.txt`, licences.join(`\n${"-".repeat(78)}\n\n`));
