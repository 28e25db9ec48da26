// The code map: controls, points, keys, film strips, results. All but the search happens in the
// browser; the kernel answers a new `query` by `nearest` and `status`.

const SHAPES = 4, MARGIN = 22;
const REACH = 14; // pixels within which a point is hovered
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export default {
  render({ model, el }) {
    const map = new CodeMap(model, el);
    return () => map.remove();
  },
};

class CodeMap {
  constructor(model, el) {
    this.model = model;
    this.data = unpack(model.get("data"));
    this.count = this.data.positions.length / 2;
    this.radius = Math.max(2, Math.min(5, 180 / Math.sqrt(this.count)));
    this.hovered = this.focused = null;
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
    this.rows = Array.from({ length: data.k + 1 }, (_, n) => {
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

  // Where points are ----------------------------------------------------------------------------

  resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return; // hidden, for now
    this.width = width;
    this.height = height;
    for (const canvas of [this.base, this.over]) sharpen(canvas, width, height);
    const { positions } = this.data, x = [Infinity, -Infinity], y = [Infinity, -Infinity];
    for (let i = 0; i < this.count; i++) {
      widen(x, positions[2 * i]);
      widen(y, positions[2 * i + 1]);
    }
    const scale = Math.min((width - 2 * MARGIN) / (x[1] - x[0] || 1),
      (height - 2 * MARGIN) / (y[1] - y[0] || 1));
    this.places = new Float32Array(2 * this.count);
    for (let i = 0; i < this.count; i++) {
      this.places[2 * i] = width / 2 + scale * (positions[2 * i] - (x[0] + x[1]) / 2);
      this.places[2 * i + 1] = height / 2 - scale * (positions[2 * i + 1] - (y[0] + y[1]) / 2);
    }
    this.draw();
  }

  place(i) { return [this.places[2 * i], this.places[2 * i + 1]]; }

  /** The point for which `far(dx, dy)` from (x, y) is least, null where it is infinite for all. */
  closest(x, y, far) {
    let best = null, least = Infinity;
    for (let i = 0; i < this.count; i++) {
      const distance = far(this.places[2 * i] - x, this.places[2 * i + 1] - y);
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  // Colours -------------------------------------------------------------------------------------

  bitOf(i, bit) { return (this.data.codes[(i * this.data.bits + bit) >> 3] >> (7 - (bit & 7))) & 1; }

  distance(i, j) {
    let sum = 0;
    for (let bit = 0; bit < this.data.bits; bit++) sum += this.bitOf(i, bit) ^ this.bitOf(j, bit);
    return sum;
  }

  /** Groups of the chosen colouring: each video's group, -1 for none, and the groups' names. */
  groups() {
    const { data, model } = this, bit = model.get("bit");
    if (model.get("colour_by") === "category") return { of: data.categories, names: data.category_names };
    if (model.get("colour_by") === "bit") {
      const of = Int32Array.from({ length: this.count }, (_, i) => this.bitOf(i, bit));
      return { of, names: [`bit ${bit} is 0 (−1)`, `bit ${bit} is 1 (+1)`] };
    }
    const only = model.get("category"), names = [];
    data.story_ranks.forEach((rank, i) => {
      if (rank < 0 || !this.shown(i)) return;
      const one = only !== null || !data.category_names.length;
      names[rank] = one ? data.story_names[data.stories[i]] : `story ${rank + 1} of its category`;
    });
    return { of: data.story_ranks, names };
  }

  shown(i) {
    const only = this.model.get("category");
    return only === null || this.data.categories[i] === only;
  }

  mark(context, group, x, y, radius) {
    const { palette } = this.data, shape = (group + Math.floor(group / palette.length)) % SHAPES;
    context.fillStyle = group < 0 ? "#7f7f7f" : palette[group % palette.length];
    trace(context, group < 0 ? 0 : shape, x, y, radius);
    context.fill();
    Object.assign(context, { strokeStyle: this.ground, lineWidth: 0.6 }); // neighbours stay apart
    context.stroke();
  }

  // Drawing -------------------------------------------------------------------------------------

  draw() {
    if (!this.places) return;
    const style = getComputedStyle(this.stage), context = this.base.getContext("2d");
    this.ink = style.color;
    this.ground = style.backgroundColor;
    const { of, names } = (this.grouping = this.groups());
    const some = this.model.get("query") !== null;
    context.clearRect(0, 0, this.width, this.height);
    for (const lit of [false, true]) {
      for (let i = 0; i < this.count; i++) {
        if (this.shown(i) !== lit) continue;
        context.globalAlpha = (lit ? 0.9 : 0.12) * (some ? 0.45 : 1);
        this.mark(context, of[i], ...this.place(i), this.radius);
      }
    }
    context.globalAlpha = 1;
    if (this.model.get("colour_by") === "category" && !some) this.name(context, of, names);
    this.showLegend();
    this.drawOver();
  }

  /** Write each group's name on its own point nearest to the group's median, if there is room. */
  name(context, of, names) {
    const members = names.map(() => []), taken = [];
    for (let i = 0; i < this.count; i++) if (of[i] >= 0 && this.shown(i)) members[of[i]].push(i);
    Object.assign(context, { font: `600 11px ${this.font()}`, textAlign: "center" });
    for (const [group, its] of members.entries()) {
      if (!its.length) continue;
      const middle = [0, 1].map((axis) => median(its.map((i) => this.places[2 * i + axis])));
      const far = (i) => Math.hypot(this.place(i)[0] - middle[0], this.place(i)[1] - middle[1]);
      const [x, y] = this.place(its.reduce((best, i) => (far(i) < far(best) ? i : best)));
      const half = context.measureText(names[group]).width / 2 + 2;
      const left = Math.max(half, Math.min(this.width - half, x));
      if (taken.some(([a, b, c]) => Math.abs(a - left) < half + c && Math.abs(b - y) < 14)) continue;
      taken.push([left, y, half]);
      this.write(context, names[group], left, y - this.radius - 3);
    }
  }

  write(context, text, x, y) {
    Object.assign(context, { lineWidth: 3, lineJoin: "round", strokeStyle: this.ground });
    context.strokeText(text, x, y);
    context.fillStyle = this.ink;
    context.fillText(text, x, y);
  }

  font() { return getComputedStyle(this.stage).fontFamily; }

  drawOver() {
    if (!this.places) return;
    const context = this.over.getContext("2d"), query = this.model.get("query");
    context.clearRect(0, 0, this.width, this.height);
    if (query !== null) this.drawAnswer(context, query);
    for (const i of new Set([this.hovered, this.focused])) {
      if (i !== null) this.ring(context, i, this.radius + 4, this.ink, 2);
    }
  }

  /** What the kernel found, once it is for the query that is chosen now. */
  answer() {
    const nearest = this.model.get("nearest");
    return nearest.query === this.model.get("query") ? nearest : {};
  }

  drawAnswer(context, query) {
    const { videos = [], relevant } = this.answer(), from = this.place(query);
    const colour = (n) => (!relevant ? this.ink : relevant[n] ? "#0072b2" : "#d55e00");
    videos.forEach((video, n) => {
      Object.assign(context, { strokeStyle: colour(n), lineWidth: 1, globalAlpha: 0.6 });
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...this.place(video));
      context.stroke();
      context.globalAlpha = 1;
    });
    videos.forEach((video, n) => {
      this.mark(context, this.grouping.of[video], ...this.place(video), this.radius + 1);
      this.ring(context, video, this.radius + 4, colour(n), 2, relevant && !relevant[n]);
    });
    Object.assign(context, { font: `600 11px ${this.font()}`, textAlign: "left" });
    videos.forEach((video, n) => {
      const [x, y] = this.place(video);
      this.write(context, n + 1, x + this.radius + 6, y - 3);
    });
    this.mark(context, this.grouping.of[query], ...from, this.radius + 2);
    this.ring(context, query, this.radius + 5, this.ink, 3);
    this.ring(context, query, this.radius + 9, this.ink, 1);
  }

  ring(context, i, radius, colour, lineWidth, dashed = false) {
    Object.assign(context, { strokeStyle: colour, lineWidth });
    context.setLineDash(dashed ? [3, 2.5] : []);
    context.beginPath();
    context.arc(...this.place(i), radius, 0, 7);
    context.stroke();
    context.setLineDash([]);
  }
}

function make(tag, name, parent, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return parent.appendChild(element);
}

function unpack(data) {
  const copy = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  const integers = (view) => new Int32Array(copy(view));
  return {
    ...data,
    positions: new Float32Array(copy(data.positions)),
    codes: new Uint8Array(copy(data.codes)),
    categories: integers(data.categories),
    stories: integers(data.stories),
    story_ranks: integers(data.story_ranks),
    strips: new Uint8Array(data.strips.buffer, data.strips.byteOffset, data.strips.byteLength),
    strip_ends: new Uint32Array(copy(data.strip_ends)),
  };
}

/** Size a canvas in CSS pixels, with as many dots as the screen has. */
function sharpen(canvas, width, height) {
  const dots = window.devicePixelRatio || 1, context = canvas.getContext("2d");
  Object.assign(canvas, { width: Math.round(width * dots), height: Math.round(height * dots) });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  context.scale(dots, dots);
  return context;
}

/** Trace a circle, triangle, square or diamond of about the same area. */
function trace(context, shape, x, y, r) {
  const corners = [
    null,
    [[0, -1.3], [1.15, 0.8], [-1.15, 0.8]],
    [[-0.87, -0.87], [0.87, -0.87], [0.87, 0.87], [-0.87, 0.87]],
    [[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]],
  ][shape];
  context.beginPath();
  if (!corners) return context.arc(x, y, r, 0, 7);
  for (const [dx, dy] of corners) context.lineTo(x + r * dx, y + r * dy);
  context.closePath();
}

function widen(range, value) {
  range[0] = Math.min(range[0], value);
  range[1] = Math.max(range[1], value);
}

function median(values) { return values.sort((a, b) => a - b)[values.length >> 1]; }
