// @ts-check
/**
 * The finished pictures: in the browser's database, shared by its tabs, newest first. Where there
 * is no database, or no room in it, they are kept in memory for this tab.
 */

/** @typedef {import("./parameters.js").Parameters} Parameters */
/**
 * @typedef {Object} Picture
 * @property {string} id request and index: the same picture made twice is kept once
 * @property {string} request
 * @property {number} created milliseconds since 1970
 * @property {number} width
 * @property {number} height
 * @property {string} type such as "image/png"
 * @property {number} seconds from sending the request to the picture
 * @property {Parameters} parameters that give this picture again
 * @property {Uint8Array<ArrayBuffer>} bytes of the file
 * @property {import("./spent.js").Spent | null} [spent] what was computed, where the server told
 * @property {import("./report.js").Report | null} [report] how it fared, where the server told
 */
/** @typedef {{changed: string[], removed: string[]}} Change */

export const MAX_PICTURES = 500;
const STORE = "pictures";

export class PictureStore {
  /** @type {Map<string, Picture>} */
  #pictures = new Map();
  /** @type {IDBDatabase | null} */
  #database = null;
  /** @type {BroadcastChannel | null} */
  #channel = null;

  /** @param {(change: Change) => void} onChange also when another tab changed something */
  constructor(onChange) {
    this.onChange = onChange;
    /** Why new pictures do not outlive this tab. @type {"forbidden" | "refused" | null} */
    this.trouble = null;
  }

  /** Read what is there. Never fails: without a database, `trouble` says so. */
  async open() {
    try {
      this.#database = await openDatabase();
      for (const picture of await result(this.#objects("readonly").getAll())) {
        this.#pictures.set(picture.id, picture);
      }
      this.#channel = new BroadcastChannel("musiva.pictures");
      this.#channel.onmessage = ({ data }) => this.#follow(data);
    } catch {
      this.#database = null;
      this.trouble = "forbidden";
    }
    this.onChange({ changed: [...this.#pictures.keys()], removed: [] });
  }

  /** All pictures, newest first. */
  all() {
    return [...this.#pictures.values()].sort((a, b) => b.created - a.created || (a.id < b.id ? -1 : 1));
  }

  /** @param {string} id */
  get(id) {
    return this.#pictures.get(id) ?? null;
  }

  /**
   * Keep pictures; the oldest leave when there are more than MAX_PICTURES.
   *
   * @param {Picture[]} pictures
   */
  async put(pictures) {
    for (const picture of pictures) this.#pictures.set(picture.id, picture);
    const removed = this.all().slice(MAX_PICTURES).map((picture) => picture.id);
    for (const id of removed) this.#pictures.delete(id);
    await this.#write((objects) => {
      for (const picture of pictures) objects.put(picture);
      for (const id of removed) objects.delete(id);
    });
    this.#tell({ changed: pictures.map((picture) => picture.id), removed });
  }

  /**
   * Remove pictures; `put` brings them back.
   *
   * @param {string[]} ids
   */
  async remove(ids) {
    for (const id of ids) this.#pictures.delete(id);
    await this.#write((objects) => ids.forEach((id) => objects.delete(id)));
    this.#tell({ changed: [], removed: ids });
  }

  /** @param {(objects: IDBObjectStore) => void} work */
  async #write(work) {
    if (!this.#database) return;
    try {
      const objects = this.#objects("readwrite");
      work(objects);
      await committed(objects.transaction);
      this.trouble = null;
    } catch {
      this.trouble = "refused";
    }
  }

  /** @param {IDBTransactionMode} mode */
  #objects(mode) {
    if (!this.#database) throw new Error("no database");
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }

  /** @param {Change} change */
  #tell(change) {
    this.#channel?.postMessage(change);
    this.onChange(change);
  }

  /** @param {Change} change of another tab */
  async #follow({ changed, removed }) {
    for (const id of removed) this.#pictures.delete(id);
    const found = await Promise.all(changed.map((id) => result(this.#objects("readonly").get(id))));
    // One that is not there any more was removed since.
    const there = found.filter((picture) => picture !== undefined);
    for (const picture of there) this.#pictures.set(picture.id, picture);
    this.onChange({ changed: there.map((picture) => picture.id), removed });
  }
}

/** @returns {Promise<IDBDatabase>} */
function openDatabase() {
  const request = indexedDB.open("musiva", 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  return result(request);
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction */
function committed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error);
  });
}
