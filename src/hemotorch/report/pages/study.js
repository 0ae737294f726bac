"use strict";
const root = document.documentElement;
const view = document.getElementById("view"), slider = document.getElementById("slider");
const slices = [...view.children];
root.classList.add("js");

function show(index) {
  slider.value = index;
  index = Number(slider.value);
  slices.forEach((slice, number) => slice.classList.toggle("shown", number === index));
  document.getElementById("now").setAttribute("x", index);
  const words = slices[index].querySelector("svg").getAttribute("aria-label");
  slider.setAttribute("aria-valuetext", words);
  document.getElementById("caption").replaceChildren(...words.split("; ").map(text => {
    const line = document.createElement("span");
    line.textContent = text;
    return line;
  }));
}

function step(by) {
  const before = slider.value;
  show(Number(before) + by);
  return slider.value !== before;
}

function toggle(id) {
  const box = document.getElementById(id);
  box.checked = !box.checked;
  box.dispatchEvent(new Event("change"));
}

slider.addEventListener("input", () => show(slider.value));
view.tabIndex = 0;
view.setAttribute("role", "group");
view.setAttribute("aria-label", "One slice; arrow keys, Home and End choose another");
// At the first and the last slice the page scrolls on.
view.addEventListener("wheel", event => { if (step(event.deltaY < 0 ? 1 : -1)) event.preventDefault(); }, { passive: false });
document.getElementById("lines").addEventListener("change", event => root.classList.toggle("no-lines", !event.target.checked));
document.getElementById("narrow").addEventListener("change", event => root.classList.toggle("narrow", event.target.checked));
for (const link of document.querySelectorAll("a[data-slice]"))
  link.addEventListener("click", event => {
    event.preventDefault();
    show(link.dataset.slice);
    document.getElementById("slices").scrollIntoView();
    view.focus({ preventScroll: true });
  });

const keys = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5, Home: -1e4, End: 1e4 };
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const letter = event.key.toLowerCase();
  if (letter === "o") toggle("lines");
  else if (letter === "w") toggle("narrow");
  else if (event.key in keys && (document.activeElement === view || (document.activeElement === document.body && /^Arrow(Left|Right)$/.test(event.key)))) {
    step(keys[event.key]);
    event.preventDefault();
  }
});
show(slider.value);
