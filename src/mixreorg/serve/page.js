// Runs once per view. `element` holds one figure at a time, so the listeners sit on `element` itself.
const maps = new WeakMap();

// Class or group of each pixel of the shown picture.
function indices(figure) {
  const image = figure.querySelector(".map");
  if (!maps.has(image)) {
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    maps.set(image, context.getImageData(0, 0, canvas.width, canvas.height).data);
  }
  return maps.get(image);
}

// Pale everything but one class; null lifts the veil.
function light(figure, index) {
  const veil = figure.querySelector(".veil");
  if (veil.dataset.index === String(index)) return;
  veil.dataset.index = String(index);
  const context = veil.getContext("2d");
  context.clearRect(0, 0, veil.width, veil.height);
  for (const item of figure.querySelectorAll(".legend li")) {
    item.classList.toggle("lit", Number(item.dataset.index) === index);
  }
  if (index === null) return;
  const values = indices(figure);
  const pixels = context.createImageData(veil.width, veil.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    if (values[at] !== index) pixels.data.set([255, 255, 255, 190], at);
  }
  context.putImageData(pixels, 0, 0);
}

function hideTip(figure) {
  figure.querySelector(".tip").hidden = true;
}

function point(figure, event) {
  const veil = figure.querySelector(".veil");
  const box = veil.getBoundingClientRect();
  const x = Math.min(veil.width - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * veil.width)));
  const y = Math.min(veil.height - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * veil.height)));
  const index = indices(figure)[4 * (y * veil.width + x)];
  const item = figure.querySelector(`.legend li[data-index="${index}"]`);
  light(figure, index);
  const tip = figure.querySelector(".tip");
  const parts = item ? [...item.querySelectorAll("b, span, small")].map((part) => part.textContent) : [];
  tip.textContent = parts.filter(Boolean).join(" · ");
  tip.style.left = `${event.clientX - box.left}px`;
  tip.style.top = `${event.clientY - box.top}px`;
  tip.hidden = !item;
}

element.addEventListener("pointermove", (event) => {
  const figure = event.target.closest(".view");
  if (!figure) return;
  const item = event.target.closest(".legend li");
  if (event.target.matches(".veil")) return point(figure, event);
  hideTip(figure);
  light(figure, item ? Number(item.dataset.index) : null);
});
element.addEventListener("focusin", (event) => {
  const item = event.target.closest(".legend li");
  if (item) light(item.closest(".view"), Number(item.dataset.index));
});
for (const kind of ["pointerleave", "focusout"]) {
  element.addEventListener(kind, () => {
    const figure = element.querySelector(".view");
    if (!figure) return;
    hideTip(figure);
    light(figure, null);
  });
}
