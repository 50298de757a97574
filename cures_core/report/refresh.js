// Takes what the server has every few seconds, as long as the run goes on, and keeps the place, the parts that a reader
// has opened, and the curves with their zoom.
"use strict";
function named(page) {  // details with a name that stays when their figures change
  const seen = {};
  return [...page.querySelectorAll("details")].map(one => {
    const text = one.querySelector("summary").textContent.replace(/[\d,]+/g, "");
    seen[text] = (seen[text] ?? 0) + 1;
    return [text + seen[text], one];
  });
}
const wait = () => setTimeout(look, 1000 * document.body.dataset.refresh);
async function look() {
  const text = await fetch(location.href).then(answer => answer.ok ? answer.text() : "").catch(() => "");
  if (!text) return wait();  // the server is gone or the store busy: what is shown stays
  const page = new DOMParser().parseFromString(text, "text/html");
  const open = new Set(named(document).filter(([, one]) => one.open).map(([name]) => name));
  named(page).forEach(([name, one]) => one.open = open.has(name));
  page.getElementById("curves").replaceWith(document.adoptNode(document.getElementById("curves")));
  document.querySelector("main").replaceWith(page.querySelector("main"));
  drawCurves();
  if (page.body.dataset.refresh) wait();
}
if (document.body.dataset.refresh) wait();
