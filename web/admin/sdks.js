// What each SDK needs to send to a proxy: the exact lines, and how its events name it.
// `at` has the address in every form that an SDK asks for; `key` stands for the write key.

export const SDKS = [
  { id: 'browser', name: 'Browser', libraries: ['events-sdk-js'], language: 'HTML', lines: ({ at, key }) => `<script>
  (function (queue) {
    ["identify", "track", "page", "screen", "group", "alias", "reset", "ready", "on"]
      .forEach(function (method) {
        queue[method] = function () {
          queue.push([method].concat([].slice.call(arguments)));
          return queue;
        };
      });
    queue._writeKey = "${key}";
    queue._loadOptions = {
      apiHost: "${at.host}",
      protocol: "${at.protocol}",
      batching: true,
    };
    queue.page();
  })((window.htevents = window.htevents || []));
</script>
<script async src="${at.url}/browser/release/v1-latest/events.min.js"></script>` },
  { id: 'npm', name: 'Browser (npm)', libraries: ['events-sdk-js'], language: 'JavaScript', lines: ({ at, key }) => `import { HtEventsBrowser } from "@ht-sdks/events-sdk-js-browser"

export const htevents = HtEventsBrowser.load(
  { writeKey: "${key}" },
  { apiHost: "${at.host}", protocol: "${at.protocol}", batching: true },
)
htevents.track("First Event")` },
  { id: 'node', name: 'Node', libraries: ['events-sdk-node', '@ht-sdks/events-sdk-node'], language: 'JavaScript', lines: ({ at, key }) => `import { HtEvents } from "@ht-sdks/events-sdk-node"

const htevents = new HtEvents({
  writeKey: "${key}",
  host: "${at.origin}",
  path: "${at.prefix}/v1/batch",
})
htevents.track({ userId: "user-1", event: "First Event" })` },
  { id: 'python', name: 'Python', libraries: ['events-sdk-python', 'analytics-python'], language: 'Python', lines: ({ at, key }) => `import hightouch.htevents as htevents

htevents.write_key = "${key}"
htevents.host = "${at.url}"
htevents.track("user-1", "First Event")` },
  { id: 'go', name: 'Go', libraries: ['events-sdk-go', 'analytics-go'], language: 'Go', lines: ({ at, key }) => `client, err := htevents.NewWithConfig("${key}", htevents.Config{
  Endpoint: "${at.url}",
})
client.Enqueue(htevents.Track{UserId: "user-1", Event: "First Event"})` },
  { id: 'java', name: 'Java', libraries: ['events-sdk-java', 'analytics-java'], language: 'Java', lines: ({ at, key }) => `HtEvents htevents = HtEvents.builder("${key}")
    .endpoint("${at.url}")
    .build();
htevents.enqueue(TrackMessage.builder("First Event").userId("user-1"));` },
  { id: 'ruby', name: 'Ruby', libraries: ['events-sdk-ruby', 'analytics-ruby'], language: 'Ruby', note: 'Needs HTTPS.', lines: ({ at, key }) => `htevents = Hightouch::Analytics.new(
  write_key: "${key}",
  host: "${at.name}",
  port: ${at.port},
  path: "${at.prefix}/v1/batch"
)
htevents.track(user_id: "user-1", event: "First Event")` },
  { id: 'php', name: 'PHP', libraries: ['events-sdk-php', 'analytics-php'], language: 'PHP', lines: ({ at, key }) => `HtEvents::init("${key}", ["host" => "${at.url}"]);
HtEvents::track(["userId" => "user-1", "event" => "First Event"]);` },
  { id: 'csharp', name: 'C#', libraries: ['events-sdk-csharp', 'Analytics-CSharp'], language: 'C#', lines: ({ at, key }) => `var htevents = new Analytics(new Configuration("${key}", apiHost: "${at.url}"));
htevents.Track("First Event");` },
  { id: 'react-native', name: 'React Native', libraries: ['@ht-sdks/events-sdk-react-native'], language: 'JavaScript', lines: ({ at, key }) => `import { createClient } from "@ht-sdks/events-sdk-react-native"

const htevents = createClient({
  writeKey: "${key}",
  proxy: "${at.url}/v1/b",
})
htevents.track("First Event")` },
  { id: 'swift', name: 'Swift', libraries: ['events-sdk-swift'], language: 'Swift', note: 'Both hosts: with apiHost alone, settings are fetched from Hightouch’s CDN. Needs HTTPS unless the host begins with localhost.', lines: ({ at, key }) => `let htevents = Analytics(configuration: Configuration(writeKey: "${key}")
    .apiHost("${at.host}/v1")
    .cdnHost("${at.host}/v1"))
htevents.track(name: "First Event")` },
  { id: 'kotlin', name: 'Kotlin', libraries: ['events-sdk-kotlin'], language: 'Kotlin', note: 'Both hosts: with apiHost alone, settings are fetched from Hightouch’s CDN. Needs HTTPS unless the host begins with localhost or 10.', lines: ({ at, key }) => `val htevents = Analytics("${key}", applicationContext) {
    apiHost = "${at.host}/v1"
    cdnHost = "${at.host}/v1"
}
htevents.track("First Event")` },
  { id: 'android', name: 'Android (Java)', libraries: ['events-sdk-android'], language: 'Java', lines: ({ at, key }) => `Analytics htevents = new Analytics.Builder(context, "${key}")
    .defaultApiHost("${at.host}/v1")
    .build();
htevents.track("First Event");` },
  { id: 'flutter', name: 'Flutter', libraries: ['events-sdk-flutter'], language: 'Dart', lines: ({ at, key }) => `final htevents = createClient(Configuration(
  "${key}",
  apiHost: "${at.url}",
));
htevents.track("First Event");` },
  { id: 'segment-browser', name: 'Segment (browser)', libraries: ['analytics.js'], language: 'JavaScript', lines: ({ at, key }) => `import { AnalyticsBrowser } from "@segment/analytics-next"

const analytics = AnalyticsBrowser.load(
  { writeKey: "${key}", cdnURL: "${at.url}" },
  { integrations: { "Segment.io": { apiHost: "${at.host}/v1", protocol: "${at.protocol}" } } },
)
analytics.track("First Event")` },
  { id: 'rudder-node', name: 'RudderStack (Node)', libraries: ['@rudderstack/rudder-sdk-node', 'analytics-node'], language: 'JavaScript', lines: ({ at, key }) => `import RudderAnalytics from "@rudderstack/rudder-sdk-node"

const rudder = new RudderAnalytics("${key}", { dataPlaneUrl: "${at.url}" })
rudder.track({ userId: "user-1", event: "First Event" })` },
  { id: "curl", name: "curl", libraries: [""], language: 'Shell', lines: ({ at, key }) => `curl ${at.url}/v1/track -u '${key}:' -H 'Content-Type: application/json' \\
  -d '{"anonymousId":"a-visitor","event":"First Event"}'` },
]

/** An address in the forms that SDKs ask for; null when it is none. */
export function forms(address) {
  let url
  try { url = new URL(address) } catch { return null }
  if (!/^https?:$/.test(url.protocol)) return null
  const prefix = url.pathname.replace(/\/+$/, '')
  return {
    url: url.origin + prefix,
    origin: url.origin,
    host: url.host + prefix,
    name: url.hostname,
    port: url.port || (url.protocol === 'https:' ? 443 : 80),
    protocol: url.protocol.slice(0, -1),
    prefix,
  }
}
