'use strict';
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Tables: show the rows whose first cell has the words.
for (const input of all('.find')) {
  input.addEventListener('input', () => {
    const words = input.value.toLowerCase();
    for (const row of all('tbody tr', input.parentNode)) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(words);
    }
  });
}

// Pictures: which cards are shown, and which predictions in them.
const cards = all('.card');
const control = (name) => document.querySelector(`.controls [name=${name}]`);
function filter() {
  const set = control('set')?.value, kind = control('class')?.value;
  for (const card of cards) {
    card.hidden = (set && card.dataset.set !== set)
      || (kind && !card.dataset.classes.split(' ').includes(kind));
  }
  const score = control('score');
  if (score) {
    const least = +score.value;
    control('shown').textContent = least.toFixed(2);
    for (const part of all('[data-score]')) {
      part.classList.toggle('low', +part.dataset.score < least);
    }
    // Of what is there: whether something above the score found it.
    for (const part of all('[data-found]')) {
      part.classList.toggle('wrong', !(+part.dataset.found >= least));
    }
  }
}
for (const input of all('.controls select, .controls input')) {
  input.addEventListener('input', filter);
}
if (control('score')) filter();

// Zoom: a card in a window of its own.
const zoom = document.getElementById('zoom'), stage = zoom.querySelector('.stage');
let current = null, size = 1;
function show(card) {
  current = card;
  size = 1;
  stage.style.setProperty('--zoom', size);
  stage.replaceChildren(card.querySelector('.panels').cloneNode(true));
  zoom.querySelector('.name').textContent = card.querySelector('.title').textContent;
  if (!zoom.open) zoom.showModal();
}
function step(by) {
  const shown = cards.filter((card) => !card.hidden);
  show(shown[(shown.indexOf(current) + by + shown.length) % shown.length]);
}
function scale(by) {
  size = Math.min(8, Math.max(1, size * by));
  stage.style.setProperty('--zoom', size);
}
const actions = {
  previous: () => step(-1), next: () => step(1), smaller: () => scale(1 / 1.5),
  larger: () => scale(1.5), close: () => zoom.close(),
};
for (const button of all('[data-do]', zoom)) {
  button.addEventListener('click', actions[button.dataset.do]);
}
for (const card of cards) {
  card.querySelector('.panels').addEventListener('click', () => show(card));
}
zoom.addEventListener('keydown', (event) => {
  const key = { ArrowLeft: 'previous', ArrowRight: 'next', '+': 'larger', '-': 'smaller' }[event.key];
  if (key) { event.preventDefault(); actions[key](); }
});
