// Where frames come from: pictures of the corpus or of one's own, a camera, a film. Frames stay in the browser until
// they are asked for; the newest is taken then.

const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];
const QUALITY = 0.92;
const CORPUS_PICTURES = 100;
const SHOWN_PX = 512;

const FAULTS = {
  NotAllowedError: "The camera was refused. Allow it beside the address and press Camera again, or open a picture or a film.",
  NotFoundError: "There is no camera. Open a picture or a film instead.",
  NotReadableError: "Another program holds the camera. Close it and press Camera again, or open a picture or a film.",
};
const INSECURE = "Browsers give a camera only to pages over https or of this very machine. Open a picture or a film instead.";

export class Input {
  /** `offer` is called at each new frame, `tell` with what went wrong. */
  constructor({ resize, input, images, version, bytes }, offer, tell) {
    Object.assign(this, { images, version, offer, tell });
    this.resize = Number(resize);
    this.bytes = Number(bytes);
    this.input = input.split(",").map(Number);
    this.kind = "pictures";
    this.pictures = [];
    this.at = 0;
    this.frozen = null;
    this.canvas = document.createElement("canvas");
    this.video = document.createElement("video");
    this.video.muted = this.video.loop = this.video.playsInline = true;
    this.video.addEventListener("error", () => this.video.src && this.tell("This browser cannot play that film. Open another one."));
  }

  get picture() {
    return this.kind === "pictures" ? this.pictures[this.at] : null;
  }

  get isMoving() {
    return this.kind !== "pictures" && !this.frozen;
  }

  get name() {
    return this.picture?.name ?? this.film ?? (this.frozen ? "camera, frozen" : "camera");
  }

  /** Begin with a picture of the corpus; the others follow in order of the corpus. */
  async begin(id, name) {
    this.own = false;
    this.show([{ id, name }]);
    const answer = await fetch(`${this.images}?k=${CORPUS_PICTURES}`).catch(() => null);
    if (!answer?.ok || this.own) return;
    const rows = (await answer.json()).rows.map((row) => ({ id: row.image_id, name: row.path }));
    this.pictures.push(...rows.filter((row) => !this.pictures.some((picture) => picture.id === row.id)));
  }

  /** A picture of the corpus, before the others. */
  insert(id, name) {
    const others = this.own ? [] : this.pictures.filter((picture) => picture.id !== id);
    this.own = false;
    this.show([{ id, name }, ...others]);
  }

  files(files) {
    const films = files.filter((file) => file.type.startsWith("video/"));
    if (films.length) return this.playFilm(films[0]);
    this.own = true;
    return this.show(files.map((file) => ({ file, name: file.name })));
  }

  show(pictures) {
    this.stop();
    this.kind = "pictures";
    this.pictures = pictures;
    this.at = 0;
    this.offer();
  }

  step(by) {
    if (this.kind !== "pictures") return this.show(this.pictures);
    this.at = (this.at + by + this.pictures.length) % this.pictures.length;
    return this.offer();
  }

  async playCamera() {
    if (!navigator.mediaDevices) return this.tell(INSECURE);
    const wanted = { video: { width: { ideal: 640 }, height: { ideal: 480 } } };
    const stream = await navigator.mediaDevices.getUserMedia(wanted).catch((fault) => this.tell(FAULTS[fault.name] ?? fault.message));
    if (!stream) return undefined;
    this.stop();
    this.kind = "camera";
    this.video.srcObject = stream;
    stream.getVideoTracks()[0].addEventListener("ended", () => this.tell("The camera is gone. Press Camera to try again, or open a picture."));
    return this.play();
  }

  async playFilm(file) {
    this.stop();
    this.kind = "film";
    this.film = file.name;
    this.video.src = URL.createObjectURL(file);
    await this.play();
    // who asked for less motion sees the first frame, and starts the film by unfreezing it
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.freeze(true);
  }

  async play() {
    const { video } = this;
    await video.play().catch(() => null);
    const turn = (this.turn = {});
    const soon = video.requestVideoFrameCallback?.bind(video) ?? requestAnimationFrame;
    const next = () => {
      if (this.turn !== turn) return;
      soon(next);
      if (!this.frozen) this.offer();
    };
    soon(next);
  }

  stop() {
    this.turn = this.frozen = this.film = null;
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
    if (this.video.src) URL.revokeObjectURL(this.video.src);
    this.video.removeAttribute("src");
  }

  /** Hold the present frame of a camera or a film, or let it go on. */
  async freeze(on) {
    if (this.kind === "pictures") return;
    if (on) {
      this.video.pause();
      this.frozen = await this.shot();
    } else {
      this.frozen = null;
      await this.video.play();
    }
    this.offer();
  }

  /** What to send and to draw: `image` is the id of a corpus picture, `data` the bytes of any other. */
  async frame() {
    if (this.kind !== "pictures") return this.frozen ?? this.shot();
    const picture = this.pictures[this.at];
    picture.bitmap ??= await this.bitmapOf(picture);
    if (picture.id) return { image: picture.id, bitmap: picture.bitmap };
    if (SENT_AS_THEY_ARE.includes(picture.file.type) && picture.file.size <= this.bytes)
      return { data: picture.file, bitmap: picture.bitmap };
    return { data: await this.scaled(picture.bitmap), bitmap: picture.bitmap };
  }

  async bitmapOf(picture) {
    if (picture.file) return createImageBitmap(picture.file);
    const answer = await fetch(`${this.images}/${picture.id}.jpg?width=${SHOWN_PX}&v=${this.version}`);
    if (!answer.ok) throw new Error("the server does not have this picture any more");
    return createImageBitmap(await answer.blob());
  }

  async shot() {
    const data = await this.scaled(this.video);
    return { data, bitmap: await createImageBitmap(this.canvas) };
  }

  /** The whole frame with the shorter side that the network's preprocessing scales to, so that it only has to crop. */
  scaled(source) {
    const [width, height] = sizeOf(source);
    const shorter = Math.min(width, height);
    this.canvas.width = Math.floor((this.resize * width) / shorter);
    this.canvas.height = Math.floor((this.resize * height) / shorter);
    this.canvas.getContext("2d").drawImage(source, 0, 0, this.canvas.width, this.canvas.height);
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", QUALITY));
  }
}

export function sizeOf(source) {
  return [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
}
