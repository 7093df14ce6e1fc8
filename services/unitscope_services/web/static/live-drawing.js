// Drawings of the live page: the frame as the network sees it, maps of units from bytes, tiles of patches.
import { sizeOf } from "./live-input.js";

const GAP = 1;

/** The centre that the network sees, after scaling the shorter side to `resize`. */
export function drawFrame(canvas, source, resize, [height, width]) {
  const [across, down] = sizeOf(source);
  const scale = Math.min(across, down) / resize;
  canvas.width = width;
  canvas.height = height;
  const [cut, tall] = [width * scale, height * scale];
  canvas.getContext("2d").drawImage(source, (across - cut) / 2, (down - tall) / 2, cut, tall, 0, 0, width, height);
}

/** Levels of a byte in grey; `gamma` below 1 brightens weak ones. With `signed` 128 is zero and stays. */
function greys(gamma, signed) {
  return Uint8Array.from({ length: 256 }, (_, level) => {
    if (!signed) return Math.round(255 * (level / 255) ** gamma);
    const share = (level - 128) / 127;
    return Math.round(128 + 127 * Math.sign(share) * Math.abs(share) ** gamma);
  });
}

/** How many columns show so many units as a square. */
export function columnsOf(units) {
  return Math.ceil(Math.sqrt(units));
}

/** All maps side by side, a pixel a cell, with a gap between. */
export function drawMaps(canvas, maps, units, [rows, cols], look) {
  const across = columnsOf(units);
  const down = Math.ceil(units / across);
  canvas.width = across * (cols + GAP);
  canvas.height = down * (rows + GAP);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer); // grey, so the order of bytes does not matter
  const colours = Uint32Array.from(greys(look.gamma, look.signed), (grey) => (255 << 24) | (grey << 16) | (grey << 8) | grey);
  for (let unit = 0, from = 0; unit < units; unit++) {
    const left = (unit % across) * (cols + GAP);
    const top = Math.floor(unit / across) * (rows + GAP);
    for (let row = 0; row < rows; row++) {
      const line = (top + row) * canvas.width + left;
      for (let col = 0; col < cols; col++) pixels[line + col] = colours[maps[from++]];
    }
  }
  context.putImageData(picture, 0, 0);
}

/** One map, a pixel a cell. */
export function drawMap(canvas, map, [rows, cols], look) {
  canvas.width = cols;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(cols, rows);
  const levels = greys(look.gamma, look.signed);
  map.forEach((level, cell) => picture.data.set([levels[level], levels[level], levels[level], 255], 4 * cell));
  context.putImageData(picture, 0, 0);
}

/** A picture file. */
export async function drawPicture(canvas, bytes) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  copyTo(canvas, bitmap);
}

export function copyTo(canvas, source) {
  canvas.width = source.width;
  canvas.height = source.height;
  canvas.getContext("2d").drawImage(source, 0, 0);
}

/** The stored patch of each unit where its map stands, from sheets of `columns` × `columns` tiles. */
export async function drawPatches(canvas, sheets, units, { tile, columns }) {
  const across = columnsOf(units);
  const pictures = await Promise.all(sheets.map(loaded));
  canvas.width = across * tile;
  canvas.height = Math.ceil(units / across) * tile;
  const context = canvas.getContext("2d");
  for (let unit = 0; unit < units; unit++) {
    const place = unit % (columns * columns);
    const [left, top] = [(place % columns) * tile, Math.floor(place / columns) * tile];
    const [x, y] = [(unit % across) * tile, Math.floor(unit / across) * tile];
    context.drawImage(pictures[Math.floor(unit / (columns * columns))], left, top, tile, tile, x, y, tile - GAP, tile - GAP);
  }
}

async function loaded(address) {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  return picture;
}
