() => {
  // Esc stops an answer that is being written, Ctrl+Enter asks the last question again.
  const shown = (selector) => {
    const found = [...document.querySelectorAll(selector)].filter((element) => element.offsetParent !== null);
    return found[found.length - 1];
  };
  const press = (...selectors) => { selectors.map(shown).find(Boolean)?.click(); };
  let presses = 0;  // another key pressed meanwhile calls a retry off that still waits
  let stopping = false;
  // Retry can be pressed a moment after an answer has ended; the key, pressed before, waits for that.
  const retry = (turn, until) => {
    const button = shown('#chat button[aria-label="Retry" i]:enabled, #chat button[title="Retry" i]:enabled');
    if (button) button.click();
    else if (turn === presses && Date.now() < until && shown('#chat .bot.message') && (stopping || !shown('#stop')))
      setTimeout(retry, 50, turn, until);
  };
  document.addEventListener('keydown', (event) => {
    if (['Control', 'Meta', 'Shift', 'Alt'].includes(event.key)) return;
    presses += 1;
    if (event.key === 'Escape') {
      stopping = Boolean(shown('#stop'));
      press('#stop', '#compare-stop', '#conflict-cancel');
    } else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.target.value?.trim()) {
      event.preventDefault();  // with text in the box the key sends that
      retry(presses, Date.now() + 5000);
    } else {
      stopping = false;
    }
  });
}
