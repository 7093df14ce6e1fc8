// What pages do beyond plain links and forms. Every state is in the address, so nothing here keeps any.
import "./swap.js";
import "./picture-view.js";
import "./percentile-band.js";
import "./endless-list.js";
import "./lazy-part.js";
import "./tile-grid.js";
import "./keys.js";
import "./copy-text.js";
