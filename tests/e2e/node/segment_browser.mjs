// Bundled into a page by the tests: Segment's browser SDK, exposed as the page's `segment`.
import { AnalyticsBrowser } from '@segment/analytics-next'

window.loadSegment = (settings, options) => AnalyticsBrowser.load(settings, options)
