-- One event a row. Its id is the number of its lane, times 2^46, plus a sequence that never goes
-- back: so a lane is one contiguous range of the table, read and deleted in order without an
-- index, and a late acknowledgement can never name another event.
create table events (
  id       integer primary key,
  user     integer not null,  -- order is kept among events of a lane with the same number
  received integer not null,  -- ms since 1970
  skew     integer,           -- ms from receipt to the sentAt it came with; null: it came without
  age      integer not null,  -- ms old at receipt
  checksum integer not null,  -- CRC-32 over the columns above and the body
  body     blob    not null   -- one JSON object without sentAt
) strict;

-- Counters are kept in the transaction that changes them, never counted: start-up is as fast with
-- ten million events as with none.
create table lanes (
  number        integer primary key,
  name          text    not null unique,
  next_sequence integer not null default 1,
  events        integer not null default 0,
  bytes         integer not null default 0
) strict;

create table dead_letters (
  id         integer primary key autoincrement,
  lane       text    not null,
  code       text    not null,
  message    text    not null,
  form       text    not null,  -- 'received' or 'sent': what body holds
  received   integer not null,  -- ms since 1970
  died       integer not null,
  message_id text    not null,
  revision   text    not null,  -- of the mapping at that time
  receipt    blob    not null,  -- JSON: what was known of its request, for a replay
  status     integer,           -- Hightouch's answer, where there was one
  answer     text    not null,
  skew       integer,
  age        integer not null,
  checksum   integer not null,
  body       blob    not null
) strict;

create table totals (
  name  text    primary key,
  value integer not null
) strict, without rowid;

insert into totals values ('dead_letters', 0), ('dead_letter_bytes', 0);
