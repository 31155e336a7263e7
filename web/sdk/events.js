// The browser SDK as one script, served at its CDN path.
//
// The published CDN build loads parts of itself lazily from the CDN's address, which is compiled
// into it (and fetches a polyfill for Internet Explorer from a second one). Here every part is in
// this one file, so a page that loads it asks nobody else. It takes over the `htevents` queue that
// the official snippet leaves on the page, exactly as the CDN's file does.
import { install } from '@ht-sdks/events-sdk-js-browser/dist/pkg/browser/standalone-analytics.js'
import { setVersionType } from '@ht-sdks/events-sdk-js-browser/dist/pkg/lib/version-type.js'

setVersionType('web')

install().catch((error) => {
  console.error('[htevents] could not start', error)
})
