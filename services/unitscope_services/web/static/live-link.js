// The connection to the server: one question at a time, connected when something is asked.

const LONGEST_S = 30;

/** Why a frame has no answer: `problem` of the server, or a closed connection with its `code` and `reason`. */
export class Unanswered extends Error {
  constructor(words, more) {
    super(words);
    Object.assign(this, more);
  }
}

export class Link {
  constructor(address) {
    this.address = new URL(address, location.href);
    this.address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.failures = 0;
  }

  /** The answer with the bytes of its parts; rejects with Unanswered. */
  async ask(head, data) {
    const socket = await this.connected();
    return new Promise((resolve, reject) => {
      this.pending = { resolve, reject, head: null, parts: {} };
      socket.send(JSON.stringify(head));
      if (data) socket.send(data);
    });
  }

  /** How long to wait before the next try: 1, 2, 4 … seconds. */
  get patience_s() {
    return Math.min(2 ** Math.max(this.failures - 1, 0), LONGEST_S);
  }

  connected() {
    if (this.socket?.readyState === WebSocket.OPEN) return this.socket;
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.address);
      socket.binaryType = "arraybuffer";
      this.socket = socket;
      this.pending = { reject };
      socket.addEventListener("open", () => resolve(socket));
      socket.addEventListener("message", (event) => this.hear(event.data));
      socket.addEventListener("close", (event) => this.socket === socket && this.lose(event));
    });
  }

  hear(data) {
    const { pending } = this;
    if (typeof data === "string") {
      this.failures = 0;
      pending.head = JSON.parse(data);
      pending.missing = [...(pending.head.parts ?? [])];
    } else {
      pending.parts[pending.missing.shift()] = new Uint8Array(data);
    }
    if (pending.missing.length) return;
    this.pending = null;
    const { problem, retry_after_s } = pending.head;
    if (problem) pending.reject(new Unanswered(problem.detail, { problem, retry_after_s }));
    else pending.resolve({ head: pending.head, parts: pending.parts });
  }

  lose({ code, reason }) {
    const { pending } = this;
    this.pending = null;
    if (!pending) return; // idle: the next question connects again
    this.failures += 1;
    pending.reject(new Unanswered(reason || "the connection was lost", { code, retry_after_s: this.patience_s }));
  }
}
