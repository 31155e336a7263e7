// The shop, and the list of events on their way. No framework: it is a page of a few buttons.
const setup = JSON.parse(document.getElementById('setup').textContent)
const $ = (id) => document.getElementById(id)
const money = new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR' })

const PRODUCTS = [
  { product_id: 'c-101', sku: 'SKERRY-250', name: 'Skerry', note: 'Dark, cocoa, smoke', price: 9.9, hue: 18 },
  { product_id: 'c-102', sku: 'LIGHT-250', name: 'Lighthouse', note: 'Citrus, honey', price: 11.5, hue: 42 },
  { product_id: 'c-103', sku: 'TIDE-250', name: 'Slack Tide', note: 'Decaf, hazelnut', price: 10.2, hue: 190 },
  { product_id: 'c-104', sku: 'NORTH-250', name: 'Northerly', note: 'Bergamot, berries', price: 13.4, hue: 330 },
]
const described = ({ note, hue, ...product }) => ({ ...product, category: 'Coffee', currency: 'EUR' })

// The SDK replaces the queue when it has loaded, so it is looked up at each call.
const sdk = new Proxy({}, { get: (_, method) => (...given) => window.htevents[method](...given) })

const cart = new Map()
let coupon = null
let step = 'cart'
const orderId = () => `o-${Math.random().toString(36).slice(2, 8)}`

const lines = () =>
  PRODUCTS.filter((product) => cart.has(product.sku)).map((product) => ({
    ...described(product),
    quantity: cart.get(product.sku),
  }))
const total = () => {
  const sum = lines().reduce((sum, line) => sum + line.price * line.quantity, 0)
  return Math.round(sum * (coupon ? 90 : 100)) / 100
}

function el(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes)
  made.append(...children)
  return made
}

function bag(product) {
  const picture = el('div', { className: 'bag' })
  picture.style.setProperty('--hue', product.hue)
  picture.setAttribute('aria-hidden', 'true')
  picture.append(el('span', { textContent: product.name }))
  return picture
}

function drawProducts() {
  for (const product of PRODUCTS) {
    const look = el('button', { type: 'button', className: 'look', onclick: () => view(product) })
    look.append(
      bag(product),
      el('span', { className: 'name', textContent: product.name }),
      el('span', { className: 'note', textContent: product.note }),
    )
    look.setAttribute('aria-label', `Look at ${product.name}`)
    const foot = el('div', { className: 'foot' })
    const keep = el('button', { type: 'button', className: 'heart', textContent: '♡' })
    keep.setAttribute('aria-label', `Keep ${product.name} for later`)
    keep.onclick = () => {
      keep.textContent = '♥'
      sdk.track('Product Added To Wishlist', described(product))
    }
    const add = el('button', { type: 'button', className: 'add', textContent: 'Add' })
    add.setAttribute('aria-label', `Add ${product.name} to the cart`)
    add.onclick = () => change(product, 1)
    foot.append(el('span', { className: 'price', textContent: money.format(product.price) }), add)
    $('products').append(el('li', {}, look, keep, foot))
  }
}

function view(product) {
  sdk.track('Product Clicked', described(product))
  sdk.track('Product Viewed', described(product))
}

function change(product, by) {
  const quantity = (cart.get(product.sku) ?? 0) + by
  if (quantity > 0) cart.set(product.sku, quantity)
  else cart.delete(product.sku)
  sdk.track(by > 0 ? 'Product Added' : 'Product Removed', { ...described(product), quantity: 1 })
  step = 'cart'
  $('order-done').textContent = ''
  drawCart()
}

const STEPS = {
  cart: { label: 'Check out', event: 'Checkout Started', next: 'payment' },
  payment: { label: 'Pay by card', event: 'Payment Info Entered', next: 'order' },
  order: { label: 'Place the order', event: 'Order Completed', next: 'cart' },
}

function drawCart() {
  const rows = lines().map((line) => {
    const product = PRODUCTS.find(({ sku }) => sku === line.sku)
    const less = el('button', { type: 'button', textContent: '−', onclick: () => change(product, -1) })
    less.setAttribute('aria-label', `One ${line.name} less`)
    const more = el('button', { type: 'button', textContent: '+', onclick: () => change(product, 1) })
    more.setAttribute('aria-label', `One ${line.name} more`)
    return el(
      'li', {},
      el('span', { className: 'name', textContent: line.name }),
      less, el('span', { className: 'count', textContent: line.quantity }), more,
      el('span', { className: 'price', textContent: money.format(line.price * line.quantity) }),
    )
  })
  $('cart-lines').replaceChildren(...rows)
  const empty = rows.length === 0
  $('cart-empty').hidden = !empty
  $('coupon').hidden = empty || coupon !== null
  $('cart-total').hidden = empty
  $('total').textContent = money.format(total())
  $('next').textContent = STEPS[step].label
  $('cart-count').textContent = lines().reduce((sum, line) => sum + line.quantity, 0)
}

function advance() {
  const { event, next } = STEPS[step]
  const order = { order_id: orderId(), total: total(), currency: 'EUR', coupon, products: lines() }
  sdk.track(event, event === 'Payment Info Entered' ? { payment_method: 'card', step: 2 } : order)
  step = next
  if (event === 'Order Completed') {
    $('order-done').textContent = `Thank you. Order ${order.order_id} is on its way, and so is its event.`
    cart.clear()
    coupon = null
  }
  drawCart()
}

// What SDKs would never send, and Hightouch would block without a word.
function sendIncomplete() {
  const event = { type: 'track', userId: 'demo-user', properties: { total: 1 }, writeKey: setup.writeKey }
  fetch(`${setup.protocol}://${setup.apiHost}/v1/track`, { method: 'POST', body: JSON.stringify(event) })
    .then((answer) => answer.json())
    .then(({ code, message }) => say(`Refused and kept as a dead letter: ${code} (${message})`))
    .catch(() => say('The proxy cannot be reached.'))
}

const CALLS = {
  identify: () => sdk.identify('demo-user', { email: 'ada@example.com', plan: 'subscriber' }),
  track: () => sdk.track('Button Clicked', { where: 'demo', at: Date.now() }),
  page: () => sdk.page('Shop', 'Home'),
  screen: () => sdk.screen('Shop', 'Home'),
  group: () => sdk.group('harbour', { name: 'Harbour Ltd.', employees: 12 }),
  alias: () => sdk.alias('demo-user-2', 'demo-user'),
  reset: () => { sdk.reset(); say('Forgotten who you are: the next event has a new anonymousId.') },
  'track without a name': sendIncomplete,
}

function drawCalls() {
  for (const [name, call] of Object.entries(CALLS)) {
    $('calls').append(el('button', { type: 'button', textContent: name, onclick: call }))
  }
}

// Where the events are: the demo tells the page what it tells the terminal.
const rows = new Map()
const counts = { accepted: 0, received: 0 }

function say(text) {
  $('said').textContent = text
}

function row(event) {
  const known = rows.get(event.id)
  if (known) return known
  const made = {
    since: performance.now(),
    element: el(
      'li', {},
      el('span', { className: `type ${event.type}`, textContent: event.type }),
      el('span', { className: 'name', textContent: event.name || event.who }),
      el('span', { className: 'state', textContent: 'accepted' }),
    ),
  }
  rows.set(event.id, made)
  $('feed').prepend(made.element)
  while ($('feed').children.length > 40) $('feed').lastChild.remove()
  return made
}

const HEARD = {
  accepted(event) {
    counts.accepted += 1
    row(event)
  },
  received(event) {
    counts.received += 1
    const { element, since } = row(event)
    element.classList.add('received')
    const took = performance.now() - since
    const told = took < 995 ? `${Math.max(1, Math.round(took))} ms` : `${(took / 1000).toFixed(1)} s`
    element
      .querySelector('.state')
      .replaceChildren(
        ...(event.blocked
          ? [`blocked: ${event.blocked}`]
          : [el('span', { className: 'long', textContent: 'received after ' }), told]),
      )
    rows.delete(event.id)
  },
  flushed(batch) {
    const events = batch.events === 1 ? '1 event' : `${batch.events} events`
    say(batch.delivered ? `Sent a batch of ${events}.` : `${events} could not be sent (${batch.reason}). The proxy keeps them and tries again.`)
  },
  upstream(state) {
    $('upstream').setAttribute('aria-checked', String(state.on))
    $('upstream-state').textContent = state.on ? 'on' : 'off'
  },
}

function listen() {
  const feed = new EventSource('feed')
  feed.onmessage = ({ data }) => {
    const heard = JSON.parse(data)
    HEARD[heard.kind](heard)
    $('accepted').textContent = counts.accepted
    $('received').textContent = counts.received
    $('waiting').textContent = Math.max(0, counts.accepted - counts.received)
  }
}

async function switchUpstream() {
  const on = $('upstream').getAttribute('aria-checked') !== 'true'
  await fetch('upstream', { method: 'POST', body: JSON.stringify({ on }) })
  say(on ? 'Hightouch is back: what waited is sent now.' : 'Hightouch is off. Go on shopping: the proxy keeps every event on disk.')
}

for (const link of document.querySelectorAll('[data-link]')) link.href = setup.links[link.dataset.link]
$('next').onclick = advance
$('upstream').onclick = switchUpstream
$('open-cart').onclick = () => {
  sdk.track('Cart Viewed', { products: lines() })
  $('cart-title').focus()
  $('cart-title').scrollIntoView({ behavior: 'smooth' })
}
$('coupon').onsubmit = (event) => {
  event.preventDefault()
  coupon = new FormData(event.target).get('code')
  sdk.track('Coupon Entered', { coupon_id: coupon, cart_total: total() })
  drawCart()
}
drawProducts()
drawCalls()
drawCart()
listen()
sdk.page('Shop', 'Home')
sdk.track('Product List Viewed', { list_id: 'coffee', products: PRODUCTS.map(described) })
