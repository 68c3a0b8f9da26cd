// @ts-check
/** How busy the server is, and what that means for what is written in the form. */

import { readCluster, readStanding } from "./api.js";
import { Outlook } from "./outlook.js";
import { OutlookView } from "./outlook-view.js";
import { Poll } from "./poll.js";
import { StandingView } from "./standing-view.js";
import { WorkersView } from "./workers-view.js";

/** @typedef {import("./parameters.js").Parameters} Parameters */
/**
 * @typedef {Object} Options
 * @property {() => boolean} ready whether the server is there
 * @property {() => string | null} key
 * @property {() => import("./form.js").Form} form
 * @property {() => void} onSilence the server did not answer
 */

const PATIENCE_MS = 6000;

export class Load {
  #standing;
  #standingView = new StandingView();
  #cluster;
  #workersView = new WorkersView();
  #outlook;
  #outlookView;
  /** What an answer to a question depends on. */
  #before = "";

  /** @param {Options} options */
  constructor({ ready, key, form, onSilence }) {
    this.#standing = new Poll({
      read: readStanding,
      ready,
      key,
      onAnswer: (load) => {
        this.#standingView.show(load);
        if (load) this.#follow(load);
        else onSilence();
      },
      onAbsent: () => this.#standingView.hide(),
    });
    this.#cluster = new Poll({
      read: readCluster,
      ready,
      key,
      onAnswer: (cluster) => {
        if (cluster) this.#workersView.show(cluster.workers);
        // A server without workers gets none while it runs.
        return cluster?.workers.length !== 0;
      },
      onAbsent: () => this.#workersView.show([]),
    });
    this.#outlookView = new OutlookView((quality) => form().setQuality(quality));
    this.#outlook = new Outlook({
      ready,
      key,
      read: () => form().draft(),
      calibrated: () => form().calibrated,
      onAnswer: (prospect) => this.#outlookView.show(prospect),
    });
  }

  /** The server is there, again or as another one, or it has been given a key. */
  renew() {
    this.#standing.renew();
    this.#cluster.renew();
    this.#outlook.renew();
  }

  /** The server is away. */
  lost() {
    this.#standingView.show(null);
    this.#workersView.show([]);
    this.#outlookView.show(null);
  }

  /** The form says something else. */
  edited() {
    this.#outlook.edited();
  }

  /**
   * The most exact quality that a request would not be refused at; null if there is none. Raises
   * what `readEstimates` does.
   *
   * @param {Parameters} parameters
   */
  async best(parameters) {
    const { best } = await this.#outlook.about(parameters, AbortSignal.timeout(PATIENCE_MS));
    return best?.quality ?? null;
  }

  /** @param {import("./api.js").Standing} load */
  #follow({ waiting, running, backlog_seconds: backlog, backlog_floor_seconds: floor }) {
    const now = [waiting, running, backlog.toFixed(1), floor.toFixed(1)].join();
    if (now !== this.#before) this.#outlook.refresh();
    this.#before = now;
  }
}
