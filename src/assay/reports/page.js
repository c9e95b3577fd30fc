"use strict";
// Text from logs and configs reaches the page as text nodes only: never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("table");
const body = table.tBodies[0];
const rows = Array.from(body.rows);
const dialog = document.getElementById("detail");
const root = document.documentElement;

function make(tag, text, attributes) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  return element;
}

// theme: the system's until a person chooses
function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function nameTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
}
try { root.dataset.theme = localStorage.getItem("assay-theme") || ""; } catch { /* no storage for a local file */ }
if (!root.dataset.theme) delete root.dataset.theme;
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("assay-theme", root.dataset.theme); } catch { /* not kept then */ }
  nameTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();

// sorting: a cell without a value stays last in either direction
function compare(column, isNumber, sign) {
  return (a, b) => {
    const [x, y] = [a.cells[column].dataset.value, b.cells[column].dataset.value];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (isNumber ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true }));
  };
}
const heads = Array.from(table.tHead.rows[0].cells);
heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
  const rising = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  body.append(...rows.sort(compare(column, head.dataset.kind === "number", rising ? 1 : -1)));
}));

// filtering: every word must be there
const filter = document.getElementById("filter");
const group = document.getElementById("group");
function applyFilter() {
  const asked = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const fits = (!group.value || row.dataset.group === group.value)
      && asked.every((word) => row.dataset.text.includes(word));
    row.hidden = !fits;
    shown += fits;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length} arms`;
}
filter.addEventListener("input", applyFilter);
group.addEventListener("change", applyFilter);
filter.form.addEventListener("submit", (event) => event.preventDefault());
applyFilter();

// details: what the address names after #/
function pairs(title, list) {
  if (!list.length) return [];
  const grid = make("table");
  for (const each of list) {
    const row = grid.insertRow();
    row.append(make("th", each[0], { scope: "row" }), ...each.slice(1).map((text) => make("td", text)));
  }
  return [make("h3", title), grid];
}
function block(title, text, kind) {
  return text ? [make("h3", title), make("pre", text, { class: kind || "", tabindex: "0" })] : [];
}
function paragraph(...parts) {
  const element = make("p");
  element.append(...parts);
  return element;
}
const armPlace = (arm) => `#/arm/${encodeURIComponent(arm)}`;
const runPlace = (arm, seed) => `#/run/${encodeURIComponent(arm)}/${seed}`;

function armDetail(name) {
  const arm = data.arms[name];
  if (!arm) return null;
  const seeds = make("table");
  const head = seeds.createTHead().insertRow();
  for (const text of ["seed", "state", "cause", ...data.metrics]) head.append(make("th", text, { scope: "col" }));
  const lines = seeds.createTBody();
  for (const seed of arm.seeds) {
    const run = data.runs[`${name}/${seed}`];
    const known = new Map(run.metrics);
    const row = lines.insertRow();
    const label = make("th", null, { scope: "row" });
    label.append(make("a", seed, { href: runPlace(name, seed) }));
    row.append(label, make("td", run.state), make("td", run.cause));
    for (const metric of data.metrics) row.append(make("td", known.get(metric) ?? "–"));
  }
  const wide = make("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Seeds" });
  wide.append(seeds);
  const same = arm.same_as ? [paragraph(`Runs exactly the same as ${arm.same_as}.`)] : [];
  return [paragraph(arm.reason), ...same, make("h3", "Seeds"), wide,
    ...pairs("Differs from the baseline in", arm.changes), ...pairs("Metrics, mean [95 % interval], seeds", arm.metrics),
    ...block("Notes", arm.notes, "note"),
    arm.folder ? paragraph("Records: ", make("a", arm.folder, { href: arm.folder })) : paragraph("No run has begun.")];
}
function runDetail(arm, seed) {
  const run = data.runs[`${arm}/${seed}`];
  if (!run) return null;
  const why = [run.state, run.cause, run.reached && `reached ${run.reached}`].filter(Boolean).join("; ");
  const parts = [paragraph(make("strong", why)), paragraph("Arm: ", make("a", arm, { href: armPlace(arm) }))];
  parts.push(...block("Evidence", run.evidence.join("\n")), ...block("Next", run.action));
  parts.push(...pairs("Differs from the baseline in", run.changes), ...pairs("Metrics", run.metrics));
  parts.push(...pairs("Resources", run.resources), ...block("End of the log", run.log));
  if (run.log_file) parts.push(paragraph("Log: ", make("a", run.log_file, { href: run.log_file })));
  if (run.folder) parts.push(paragraph("Record: ", make("a", run.folder, { href: run.folder })));
  return parts;
}
function show() {
  const [, kind, arm, seed] = location.hash.split("/").map(decodeURIComponent);
  const parts = kind === "arm" ? armDetail(arm) : kind === "run" ? runDetail(arm, seed) : null;
  if (!parts) {
    if (dialog.open) dialog.close();
    return;
  }
  document.getElementById("detail-title").textContent = kind === "arm" ? arm : `${arm}, seed ${seed}`;
  document.getElementById("detail-body").replaceChildren(...parts);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
dialog.addEventListener("close", () => {
  if (location.hash.startsWith("#/")) history.replaceState(null, "", location.pathname + location.search);
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.getElementById("close").addEventListener("click", () => dialog.close());
addEventListener("hashchange", show);
show();
