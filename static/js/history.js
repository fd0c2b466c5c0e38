// The history of messages: times as this browser's clock shows them, and everything unfolded on paper.
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const format = options => new Intl.DateTimeFormat(navigator.language, { hourCycle: "h23", ...options });
  const day = { day: "numeric", month: "short" };
  const minute = { hour: "2-digit", minute: "2-digit" };
  const second = { ...minute, second: "2-digit" };
  const forms = {
    begun: format({ ...day, year: "numeric", ...minute }),
    last: format({ ...day, ...minute }),
    step: format(second),
    dated: format({ ...day, ...second }),
  };
  const exact = format({ dateStyle: "full", timeStyle: "long" });
  const dayOf = format({ dateStyle: "short" });

  function show(list) {
    let before = null;
    for (const time of list.querySelectorAll("time[data-time]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const today = dayOf.format(at);
      const step = time.dataset.time === "step";
      const form = step && before !== null && before !== today ? "dated" : time.dataset.time;
      if (step) before = today;
      time.textContent = forms[form].format(at);
      time.title = exact.format(at);
    }
  }
  for (const summary of document.querySelectorAll(".history__when")) show(summary);
  for (const steps of document.querySelectorAll(".history__steps")) show(steps);
  for (const place of document.querySelectorAll("[data-zone]")) {
    place.textContent = zone === "UTC" ? "UTC" : `your time zone (${zone.replaceAll("_", " ")})`;
  }

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const each of folded) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
  });
})();
