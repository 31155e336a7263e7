// What the SDKs send: numbers, nulls, nesting and text beyond ASCII.
export const properties = {
  total: 12.5,
  tax: 1e-7,
  name: 'Zoë’s “Café” ☕ 東京',
  products: [{ sku: 'A-1', price: 9.9 }, { sku: 'B-2', price: 2.6 }],
  coupon: null,
  gift: false,
}
export const traits = { email: 'zoe@example.com', plan: 'free', logins: 7 }
