// The queue that the SDK's script takes over when it has loaded: calls made before are not lost.
const setup = JSON.parse(document.getElementById('setup').textContent)
const queue = (window.htevents = [])
const methods = ['identify', 'track', 'page', 'screen', 'group', 'alias', 'reset', 'ready', 'on']
for (const method of methods) {
  queue[method] = (...given) => {
    queue.push([method, ...given])
    return queue
  }
}
queue._writeKey = setup.writeKey
queue._loadOptions = {
  apiHost: setup.apiHost,
  protocol: setup.protocol,
  httpCookieServiceOptions: { renewUrl: setup.renewUrl, clearUrl: setup.clearUrl },
}
