"use strict";
const table = document.getElementById("studies"), body = table.tBodies[0];
const filter = document.getElementById("filter"), choice = document.getElementById("show");
const heads = [...table.querySelectorAll("th button")];
const types = heads.map(head => head.dataset.key).filter(key => key in { epidural: 1, intraparenchymal: 1,
  intraventricular: 1, subarachnoid: 1, subdural: 1 });
const hasChanges = heads.some(head => head.dataset.key === "change");
const perPage = Number(table.dataset.rows), mark = Number(table.dataset.mark);

const rows = JSON.parse(document.getElementById("data").textContent);
for (const row of rows) {
  const found = types.filter(type => row.type_ml[type] > 0);
  row.words = [row.name, row.failed, ...row.doubts.flatMap(doubt => [doubt.code, doubt.text]), ...found].join(" ").toLowerCase();
}
const kept = {
  all: () => true,
  doubt: row => row.doubts.length > 0,
  bleeding: row => row.slices_with_bleeding > 0,
  large: row => row.total_ml >= mark,
  grown: row => row.grown,
  failed: row => row.failed !== "",
};
const valueOf = {
  name: row => row.name,
  total: row => row.total_ml,
  doubts: row => row.failed ? null : row.doubts.length,
  change: row => row.change_ml,
  slices: row => row.slices ? row.slices_with_bleeding : null,
};
for (const type of types) valueOf[type] = row => row.type_ml[type] ?? null;

let shown = rows, page = 0, sortKey = "", rising = true;
const names = new Intl.Collator(undefined, { numeric: true });

/** The rows that are kept, in order. What has no value stands last whichever way it is sorted. */
function arrange() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = rows.filter(row => kept[choice.value](row) && words.every(word => row.words.includes(word)));
  if (sortKey) {
    const value = valueOf[sortKey], sign = rising ? 1 : -1;
    const compare = sortKey === "name" ? names.compare : (a, b) => a - b;
    shown.sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * compare(x, y);
    });
  }
  page = 0;
  draw();
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function link(text, file, label) {
  const made = element("a", "", text);
  made.href = file.split("/").map(encodeURIComponent).join("/");
  if (label) made.setAttribute("aria-label", label);
  return made;
}

function amount(ml) {
  if (ml === null || ml === undefined) return "–";
  if (ml === 0) return "0";
  return ml < 0.05 ? "< 0.1" : ml.toFixed(1);
}

function drawRow(row) {
  const line = element("tr");
  const picture = line.insertCell();
  if (row.thumbnail) {
    const image = element("img");
    image.loading = "lazy";
    image.alt = "";
    image.width = image.height = 62;
    image.src = row.thumbnail.split("/").map(encodeURIComponent).join("/");
    picture.append(image);
  } else picture.append(element("span", "no-picture"));
  const name = element("td", "name");
  name.append(row.page ? link(row.name, row.page) : row.name);
  const links = element("span", "links");
  for (const [what, file] of Object.entries(row.files)) links.append(link(what, file, what + " of " + row.name), " ");
  name.append(links);
  line.append(name);
  const total = element("td", "total");
  if (row.failed) total.append(element("span", "failed", "no result"));
  else {
    total.append(element("span", row.total_ml >= mark ? "high" : "", amount(row.total_ml)));
    if (row.doubts.length) total.append(element("small", "", " ?"), element("span", "unseen", " in doubt"));
    if (row.interval_ml) total.append(element("span", "spread", row.interval_ml.map(amount).join(" to ")));
  }
  line.append(total);
  for (const type of types) {
    const ml = row.type_ml[type];
    line.append(element("td", ml ? "" : "nothing", amount(ml)));
  }
  const notes = element("td", "notes");
  if (row.failed) notes.append(element("span", "failed", row.failed));
  for (const doubt of row.doubts) {
    const mark = element("span", "doubt", doubt.code);
    mark.title = doubt.text;
    mark.setAttribute("aria-label", doubt.code + ": " + doubt.text);
    mark.setAttribute("role", "note");
    notes.append(mark);
  }
  if (row.warnings) notes.append(element("span", "faint", row.warnings === 1 ? "1 remark" : row.warnings + " remarks"));
  line.append(notes);
  const change = element("td");
  if (hasChanges && row.change_ml !== null) {
    const text = (row.change_ml < 0 ? "−" : "+") + Math.abs(row.change_ml).toFixed(1);
    const amount = element("span", row.grown ? "doubt" : "", text);
    if (row.grown) {
      amount.title = "grown by more than 6 mL or 33 %";
      amount.setAttribute("aria-label", text + " mL, " + amount.title);
      amount.setAttribute("role", "note");
    }
    change.append(amount);
  }
  if (hasChanges) line.append(change);
  line.append(element("td", "slices", row.slices ? row.slices_with_bleeding + " of " + row.slices : ""));
  return line;
}

function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / perPage));
  const first = page * perPage, last = Math.min(first + perPage, shown.length);
  body.replaceChildren(...shown.slice(first, last).map(drawRow));
  const count = shown.length.toLocaleString("en"), whole = rows.length.toLocaleString("en");
  document.getElementById("status").textContent = shown.length === rows.length ? `${whole} studies` : `${count} of ${whole} studies`;
  document.getElementById("page").textContent = shown.length ? `${first + 1} to ${last} of ${count}` : "none";
  document.getElementById("back").disabled = page === 0;
  document.getElementById("next").disabled = page >= pages - 1;
  document.querySelector(".pager").hidden = pages === 1;
}

function sortBy(key) {
  if (sortKey === key) rising = !rising;
  else [sortKey, rising] = [key, key === "name"];  // the largest first, but names from A
  for (const head of heads) {
    const cell = head.parentElement;
    if (head.dataset.key === sortKey) cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  }
  arrange();
}

function turn(by) {
  page += by;
  draw();
  scrollTo(0, 0);
}

for (const head of heads) head.addEventListener("click", () => sortBy(head.dataset.key));
let waiting = 0;
filter.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(arrange, 120); });
choice.addEventListener("change", arrange);
document.getElementById("back").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
document.addEventListener("keydown", event => {
  if (event.key !== "/" || document.activeElement === filter) return;
  filter.focus();
  event.preventDefault();
});
arrange();
