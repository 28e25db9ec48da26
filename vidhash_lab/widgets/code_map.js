// The page around the points of code_map_points.js: controls, keys, film strips, results. All but
// the search happens in the browser; the kernel answers a new `query` by `nearest` and `status`.

const REACH = 14; // pixels within which a point is hovered
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export default {
  render({ model, el }) {
    const map = new CodeMap(model, el);
    return () => map.remove();
  },
};

class CodeMap extends Points {
  constructor(model, el) {
    super(model);
    this.build(el);
    this.listen();
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(this.stage);
    this.themed = new MutationObserver(() => this.draw()); // a dark theme may come and go
    this.themed.observe(document.body, { attributeFilter: ["data-jp-theme-name", "class"] });
    this.showControls();
    this.showAnswer();
  }

  remove() {
    this.resized.disconnect();
    this.themed.disconnect();
    for (const [event, callback] of this.callbacks) this.model.off(event, callback);
    for (const { image } of this.rows) URL.revokeObjectURL(image.src);
  }

  // The page ------------------------------------------------------------------------------------

  build(el) {
    const { data, count } = this;
    const root = make("div", "code-map", el);
    const controls = make("div", "code-map-controls", root);
    const control = (text, tag, limits) => {
      const label = make("label", "", controls, text);
      return Object.assign(make(tag, "", label), limits);
    };
    const number = (most) => ({ type: "number", min: 0, max: most, step: 1 });
    this.colourBy = control("colour by", "select");
    data.colourings.forEach((name) => this.colourBy.add(new Option(name)));
    this.bit = control("bit", "input", number(data.bits - 1));
    this.category = control("show", "select");
    this.category.add(new Option("all categories", ""));
    data.category_names.forEach((name, c) => this.category.add(new Option(name, c)));
    this.category.parentElement.hidden = !data.category_names.length;
    this.query = control("query video", "input", { ...number(count - 1), placeholder: "none" });
    this.legend = make("ul", "code-map-legend", controls);
    make("p", "code-map-keys", controls,
      "On the map: arrow keys go from point to point, Enter searches, Escape clears.");
    this.stage = make("div", "code-map-stage", root);
    this.base = make("canvas", "", this.stage);
    this.over = Object.assign(make("canvas", "code-map-over", this.stage), { tabIndex: 0 });
    this.over.setAttribute("role", "application");
    this.over.setAttribute("aria-label", `map of ${count} videos`);
    this.hover = make("div", "code-map-hover", this.stage);
    this.hover.hidden = true;
    this.caption = make("div", "", this.hover);
    this.caption.setAttribute("aria-live", "polite");
    this.strip = make("canvas", "", this.hover);
    this.status = make("div", "code-map-status", root);
    this.status.setAttribute("aria-live", "polite");
    this.found = make("ul", "code-map-found", root);
    this.found.setAttribute("aria-label", "the query and its nearest videos");
    this.rows = Array.from({ length: data.results + 1 }, (_, n) => {
      const button = make("button", "", make("li", "", this.found));
      button.onclick = () => this.choose(+button.dataset.video);
      const text = make("div", "", button);
      return { button, found: make("b", "", text), names: make("span", "", text),
        image: make("img", "", button) };
    });
    for (const element of [...root.querySelectorAll("select, input, button"), this.over]) {
      element.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the arrow keys
    }
  }

  listen() {
    const { model, over } = this;
    const set = (name, value) => { model.set(name, value); model.save_changes(); };
    const typed = (input) => {
      if (input.value === "") return null;
      return Math.max(0, Math.min(+input.max, Math.round(+input.value)));
    };
    this.colourBy.onchange = () => set("colour_by", this.colourBy.value);
    this.bit.onchange = () => { set("bit", typed(this.bit) ?? 0); this.showControls(); };
    this.category.onchange = () =>
      set("category", this.category.value === "" ? null : +this.category.value);
    this.query.onchange = () => { this.choose(typed(this.query)); this.showControls(); };
    for (const input of [this.bit, this.query]) { // in JupyterLab, Enter brings no change event
      input.onkeydown = (event) => { if (event.key === "Enter") input.onchange(); };
    }
    this.callbacks = [
      ["change:colour_by change:bit change:category", () => { this.showControls(); this.draw(); }],
      ["change:query", () => { this.showControls(); this.showAnswer(); this.draw(); }],
      ["change:nearest change:status", () => { this.showAnswer(); this.drawOver(); }],
    ];
    for (const [event, callback] of this.callbacks) model.on(event, callback);
    over.onpointermove = (event) => this.point(this.under(event));
    over.onpointerleave = () => this.point(null);
    over.onclick = (event) => {
      const found = this.under(event);
      if (found === null) return;
      this.choose((this.focused = found));
      this.point(null); // its strip would lie over what is lit now
    };
    over.onkeydown = (event) => this.press(event);
    over.onblur = () => this.point((this.focused = null));
  }

  press(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in ARROWS) this.point((this.focused = this.step(ARROWS[event.key])));
    else if (event.key === "Enter" && this.focused !== null) this.choose(this.focused);
    else if (event.key === "Escape") { this.choose(null); this.point((this.focused = null)); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  choose(query) {
    if (query === this.model.get("query")) return;
    this.model.set("query", query);
    this.model.save_changes();
  }

  // Hovering ------------------------------------------------------------------------------------

  under(event) {
    return this.closest(event.offsetX, event.offsetY, (dx, dy) => {
      const distance = dx * dx + dy * dy;
      return distance <= REACH * REACH ? distance : Infinity;
    });
  }

  /** The nearest point within a quarter turn around a direction, so that four keys lead anywhere. */
  step([right, down]) {
    const from = this.focused ?? this.model.get("query");
    const middle = [this.width / 2, this.height / 2], square = (dx, dy) => dx * dx + dy * dy;
    if (from === null) return this.closest(...middle, square);
    const next = this.closest(...this.place(from), (dx, dy) => {
      const along = dx * right + dy * down, across = Math.abs(dx * down + dy * right);
      return along > 0 && across <= along ? square(dx, dy) : Infinity;
    });
    return next ?? from;
  }

  /** Show a point's film strip beside it, or none for null. */
  async point(i) {
    if (i === this.hovered) return this.drawOver();
    this.hovered = i;
    this.drawOver();
    if (i === null) return void (this.hover.hidden = true);
    const picture = await createImageBitmap(this.stripOf(i));
    if (this.hovered !== i) return; // moved on meanwhile
    this.hover.hidden = false;
    this.caption.textContent = this.describe(i);
    sharpen(this.strip, picture.width, picture.height).drawImage(picture, 0, 0);
    picture.close();
    const [x, y] = this.place(i), { offsetWidth: width, offsetHeight: height } = this.hover;
    const left = Math.max(0, Math.min(this.width - width, x - width / 2));
    const top = y > height + 20 ? y - height - 14 : y + 16;
    this.hover.style.transform = `translate(${left}px, ${top}px)`;
  }

  stripOf(i) {
    const { strips, strip_ends: ends } = this.data;
    return new Blob([strips.subarray(i ? ends[i - 1] : 0, ends[i])], { type: "image/jpeg" });
  }

  describe(i) {
    const query = this.model.get("query"), words = [`video ${i}`, ...this.labels(i)];
    if (query !== null && query !== i) words.push(`${this.distance(i, query)} bits from the query`);
    return words.join(", ");
  }

  labels(i) {
    const { categories, category_names, stories, story_names } = this.data;
    return [category_names[categories[i]], story_names[stories[i]]].filter((name) => name);
  }

  // What stands around the map --------------------------------------------------------------------

  showControls() {
    this.colourBy.value = this.model.get("colour_by");
    this.bit.value = this.model.get("bit");
    this.bit.parentElement.hidden = this.colourBy.value !== "bit";
    this.category.value = this.model.get("category") ?? "";
    this.query.value = this.model.get("query") ?? "";
  }

  showLegend() {
    const { of, names } = this.grouping, counts = new Map();
    of.forEach((group, i) => this.shown(i) && counts.set(group, (counts.get(group) ?? 0) + 1));
    this.legend.replaceChildren();
    this.legend.classList.toggle("code-map-wide", this.model.get("colour_by") !== "category");
    names.forEach((name, group) => {
      if (!counts.has(group)) return;
      const item = make("li", "", this.legend);
      this.mark(sharpen(make("canvas", "", item), 14, 14), group, 7, 7, 5);
      make("span", "", item, `${name} (${counts.get(group)})`);
    });
  }

  showAnswer() {
    const { query, videos = [], distances, relevant } = this.answer();
    const chosen = this.model.get("query");
    const waiting = chosen !== null && query === undefined;
    this.status.textContent = waiting ? `video ${chosen}: searching …` : this.model.get("status");
    if (waiting) return; // the last answer stays until the next is there
    this.rows.forEach(({ button, found, names, image }, n) => {
      const video = n ? videos[n - 1] : query, right = n ? relevant?.[n - 1] : null;
      URL.revokeObjectURL(image.src);
      button.style.visibility = video === undefined ? "hidden" : "visible";
      if (video === undefined) return;
      button.dataset.video = video;
      button.className = right == null ? "" : right ? "code-map-right" : "code-map-wrong";
      const sign = right == null ? "" : right ? "✓ " : "✗ ";
      found.textContent = n ? `${n}  ${sign}${distances[n - 1]} bits` : "query";
      names.textContent = [`video ${video}`, ...this.labels(video)].join(", ");
      image.src = URL.createObjectURL(this.stripOf(video));
      image.alt = `film strip of video ${video}`;
    });
  }
}

function make(tag, name, parent, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return parent.appendChild(element);
}
