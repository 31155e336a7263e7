// Sends every event type of Segment's Node SDK, then ends: node segment.mjs HOST KEY
import { Analytics } from '@segment/analytics-node'
import { properties, traits } from './shop.mjs'

const [host, writeKey] = process.argv.slice(2)
const analytics = new Analytics({ host, writeKey, flushAt: 4 })
let failed = false
analytics.on('error', (error) => {
  failed = true
  console.error(error)
})
analytics.identify({ userId: 'user-1', anonymousId: 'anon-1', traits })
analytics.track({ userId: 'user-1', event: 'Order Completed', properties })
analytics.track({ anonymousId: 'anon-2', event: 'Nothing in it' })
analytics.page({ userId: 'user-1', category: 'Docs', name: 'Start', properties: { n: 1 } })
analytics.screen({ userId: 'user-1', name: 'Main', properties: { x: 1 } })
analytics.group({ userId: 'user-1', groupId: 'group-1', traits: { employees: 42 } })
analytics.alias({ userId: 'user-1', previousId: 'anon-1' })
analytics.track({
  userId: 'user-1',
  event: 'With a context',
  context: { ip: '203.0.113.9' },
  timestamp: new Date(),
})
await analytics.closeAndFlush({ timeout: 10000 })
process.exit(failed ? 1 : 0)
