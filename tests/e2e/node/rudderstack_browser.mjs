// Bundled into a page by the tests: RudderStack's browser SDK with its plugins inside.
import { RudderAnalytics } from '@rudderstack/analytics-js/bundled'

window.loadRudder = (writeKey, dataPlaneUrl, options) => {
  const sdk = new RudderAnalytics()
  sdk.load(writeKey, dataPlaneUrl, options)
  return sdk
}
