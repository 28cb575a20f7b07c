(function () {
  "use strict";

  // Alignments: without this script all are shown one after another; with it, one at a time.
  var picker = document.getElementById("alignment-picker");
  var alignments = Array.prototype.slice.call(document.querySelectorAll(".alignment"));
  function showAlignment() {
    alignments.forEach(function (article) { article.hidden = article.id !== picker.value; });
  }
  if (picker) {
    document.getElementById("alignment-controls").hidden = false;
    picker.addEventListener("change", showAlignment);
    showAlignment();
  }

  // One tab stop per alignment; arrows, Home and End move between its blocks, Escape hides the card.
  alignments.forEach(function (article) {
    var flow = article.querySelector(".flow");
    var blocks = Array.prototype.slice.call(flow.querySelectorAll(".block"));
    function at(index) {
      blocks.forEach(function (block, i) { block.tabIndex = i === index ? 0 : -1; });
    }
    at(0);
    flow.addEventListener("focusin", function (event) {
      flow.classList.remove("quiet");
      var index = blocks.indexOf(event.target);
      if (index >= 0) { at(index); }
    });
    flow.addEventListener("mouseover", function () { flow.classList.remove("quiet"); });
    flow.addEventListener("keydown", function (event) {
      var index = blocks.indexOf(event.target);
      var last = blocks.length - 1;
      var next = { ArrowRight: Math.min(index + 1, last), ArrowLeft: Math.max(index - 1, 0), Home: 0, End: last }[event.key];
      if (event.key === "Escape") { flow.classList.add("quiet"); }
      if (index < 0 || next === undefined) { return; }
      event.preventDefault();
      blocks[next].focus();
    });
  });

  // Samples: filter by data set and by verdict.
  var controls = document.getElementById("sample-controls");
  if (controls) {
    var set = document.getElementById("sample-set");
    var verdict = document.getElementById("sample-verdict");
    var shown = document.getElementById("sample-count");
    var samples = Array.prototype.slice.call(document.querySelectorAll(".sample[data-set]"));
    var filter = function () {
      var left = samples.filter(function (sample) {
        var keep = (set.value === "all" || sample.dataset.set === set.value) &&
          (verdict.value === "all" || sample.dataset.verdict === verdict.value);
        sample.hidden = !keep;
        return keep;
      });
      shown.textContent = left.length + " of " + samples.length + " shown";
    };
    set.addEventListener("change", filter);
    verdict.addEventListener("change", filter);
    controls.hidden = false;
    filter();
  }
})();
