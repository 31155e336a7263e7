// Sends every event type of RudderStack's Node SDK, then ends: node rudderstack.mjs HOST KEY [gzip]
import Analytics from '@rudderstack/rudder-sdk-node'
import { properties, traits } from './shop.mjs'

const [host, writeKey, gzip] = process.argv.slice(2)
let failed = false
const analytics = new Analytics(writeKey, {
  dataPlaneUrl: host,
  gzip: gzip === 'gzip',
  flushAt: 4,
  errorHandler: (error) => {
    failed = true
    console.error(error)
  },
})
const calls = [
  ['identify', { userId: 'user-1', anonymousId: 'anon-1', traits }],
  ['track', { userId: 'user-1', event: 'Order Completed', properties }],
  ['track', { anonymousId: 'anon-2', event: 'Nothing in it' }],
  ['page', { userId: 'user-1', category: 'Docs', name: 'Start', properties: { n: 1 } }],
  ['screen', { userId: 'user-1', name: 'Main', properties: { x: 1 } }],
  ['group', { userId: 'user-1', groupId: 'group-1', traits: { employees: 42 } }],
  ['alias', { userId: 'user-1', previousId: 'anon-1' }],
]
await Promise.all(
  calls.map(([type, event]) => new Promise((resolve) => analytics[type](event, resolve))),
)
await analytics.flush()
process.exit(failed ? 1 : 0)
