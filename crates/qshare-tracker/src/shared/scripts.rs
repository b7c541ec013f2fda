//! The scripts that change what lies in Redis, and calls of scripts and commands.
//!
//! A script is atomic: nothing else happens in Redis meanwhile. `layout` has the keys and values.

use std::sync::LazyLock;

use redis::{Cmd, Script};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScriptName {
    Open,
    Refresh,
    Finish,
    Close,
    Put,
    Remove,
    Clean,
    Read,
    Post,
    ClaimMailbox,
    EndMailbox,
    LeaveMailbox,
    StateOfMailbox,
}

/// Opens a session, or changes its details. Refused while a newer session exists. Returns 1 and
/// the former tracker, or 0 and the tracker of the newer session.
const OPEN: &str = r"
local current = redis.call('GET', KEYS[1])
local from, former = ARGV[1], ''
if current then
  local number, mine = string.sub(current, 1, 16), string.sub(ARGV[1], 1, 16)
  local tracker = string.sub(current, 50, 81)
  if number > mine or (number == mine and tracker ~= ARGV[2]) then return {0, tracker} end
  if string.sub(current, 49, 49) == 'l' then
    from = string.sub(current, 25, 48)
    if tracker ~= ARGV[2] then former = tracker end
  elseif number == mine then
    return {0, tracker}
  end
end
redis.call('SET', KEYS[1], ARGV[1] .. from .. 'l' .. ARGV[2] .. ARGV[3], 'PX', ARGV[4])
return {1, former}";

/// Extends a session's lease. Returns 1, or 0 if it must be published again, or -1 if a newer one
/// exists.
const REFRESH: &str = r"
local current = redis.call('GET', KEYS[1])
if not current then return 0 end
local number = string.sub(current, 1, 16)
if number < ARGV[1] then return 0 end
if number > ARGV[1] or string.sub(current, 50, 81) ~= ARGV[2]
  or string.sub(current, 49, 49) ~= 'l' then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

/// Ends a full announcement: what was published before the stamp does not count any more.
const FINISH: &str = r"
local current = redis.call('GET', KEYS[1])
if not current or string.sub(current, 1, 24) ~= ARGV[1]
  or string.sub(current, 49, 81) ~= 'l' .. ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[1] .. string.sub(current, 49), 'KEEPTTL')
return 1";

/// Ends a session. Returns 1, or 0 if it is not there, or -1 if a newer one exists.
const CLOSE: &str = r"
local current = redis.call('GET', KEYS[1])
if not current then return 0 end
local number = string.sub(current, 1, 16)
if number < ARGV[1] then return 0 end
if number > ARGV[1] or string.sub(current, 50, 81) ~= ARGV[2] then return -1 end
redis.call('SET', KEYS[1], string.sub(current, 1, 48) .. 'g' .. string.sub(current, 50), 'PX', ARGV[3])
return 1";

/// Adds or changes an entry, unless a newer session published it. Returns the trackers that watch
/// the content, if the entry is new or has changed.
const PUT: &str = r"
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and string.sub(known, 1, 24) > string.sub(ARGV[2], 1, 24) then return {} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[5])
local held = redis.call('HGET', KEYS[4], ARGV[1])
if not held or string.sub(held, 1, 24) <= string.sub(ARGV[2], 1, 24) then
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[2])
end
redis.call('EXPIRE', KEYS[4], ARGV[5])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[5])
if known and string.sub(known, 1, 16) == string.sub(ARGV[2], 1, 16)
  and string.sub(known, 25) == string.sub(ARGV[2], 25) then return {} end
return redis.call('SMEMBERS', KEYS[3])";

/// Removes an entry, unless a newer session published it. Returns what `Removed` holds.
const REMOVE: &str = r"
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known or string.sub(known, 1, 24) > ARGV[2] then return {'', 0, {}} end
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('HGET', KEYS[4], ARGV[1]) == known then redis.call('HDEL', KEYS[4], ARGV[1]) end
local watchers = redis.call('SMEMBERS', KEYS[3])
if redis.call('EXISTS', KEYS[1]) == 1 then return {'', 0, watchers} end
local info = redis.call('HGET', KEYS[2], ARGV[3])
redis.call('HDEL', KEYS[2], ARGV[3])
return {info or '', redis.call('EXISTS', KEYS[2]), watchers}";

/// Removes entries that have not changed since they were read. Returns as [`REMOVE`] does.
const CLEAN: &str = r"
for at = 2, #ARGV, 2 do
  for _, key in ipairs({KEYS[1], KEYS[4]}) do
    if redis.call('HGET', key, ARGV[at]) == ARGV[at + 1] then
      redis.call('HDEL', key, ARGV[at])
    end
  end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'', 0, {}} end
local info = redis.call('HGET', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return {info or '', redis.call('EXISTS', KEYS[2]), {}}";

/// Returns the number of entries, and all of them or a random sample.
const READ: &str = r"
local count = redis.call('HLEN', KEYS[1])
if count <= tonumber(ARGV[1]) then return {count, redis.call('HGETALL', KEYS[1])} end
return {count, redis.call('HRANDFIELD', KEYS[1], ARGV[1], 'WITHVALUES')}";

/// Puts messages into a tracker's inbox, which is bounded.
const POST: &str = r"
for at = 3, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[at]) end
redis.call('LTRIM', KEYS[1], ARGV[1], -1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1";

/// Claims the mailbox at `KEYS[1]`, or takes it back. `KEYS[2]` is the beginning of all keys of
/// mailboxes. Arguments: token, tracker, stream, node, network, lifetime and rest in ms, most
/// mailboxes, number.
///
/// A full store makes room as `qshare_content::fair` decides: the heaviest node of the heaviest
/// network yields to a network that would have less, and within a network the heaviest node to one
/// that would have less; ended mailboxes before others, older before newer ones.
///
/// Returns 1, the time to the end of the mailbox in ms, and of each evicted mailbox its number and
/// its tracker; or 0 if the number is taken; or 2 if there is no room.
const CLAIM_MAILBOX: &str = r"
local base, network, node = KEYS[2], ARGV[5], ARGV[4]
local life, rest, most = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function uses(key, member)
  return tonumber(redis.call('ZSCORE', key, member) or 0)
end
local function less(key, member)
  if tonumber(redis.call('ZINCRBY', key, -1, member)) <= 0 then redis.call('ZREM', key, member) end
end
local function forget(member)
  local id, of = string.sub(member, 5, 36), string.sub(member, 37)
  redis.call('ZREM', base .. 'a', member)
  redis.call('ZREM', base .. 'o' .. string.sub(member, 5), member)
  less(base .. 'u' .. of, id)
  less(base .. 'n', of)
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', base .. 'a', '-inf', now, 'LIMIT', 0, 64)) do
  forget(member)
end
local known = redis.call('GET', KEYS[1])
if known then
  local left = redis.call('PTTL', KEYS[1]) - rest
  if string.sub(known, 1, 32) ~= ARGV[1] or string.sub(known, 33, 33) ~= 'o' or left <= 0 then
    return {0}
  end
  local value = string.sub(known, 1, 33) .. ARGV[2] .. ARGV[3] .. string.sub(known, 74)
  redis.call('SET', KEYS[1], value, 'KEEPTTL')
  return {1, left}
end
local answer = {1, life}
while redis.call('ZCARD', base .. 'a') >= most do
  local heaviest = redis.call('ZREVRANGE', base .. 'n', 0, 0, 'WITHSCORES')
  if not heaviest[1] then return {2} end
  local yields
  if heaviest[1] ~= network and uses(base .. 'n', network) + 1 < tonumber(heaviest[2]) then
    local nodes = redis.call('ZREVRANGE', base .. 'u' .. heaviest[1], 0, 0)
    yields = nodes[1] .. heaviest[1]
  else
    local own = redis.call('ZREVRANGE', base .. 'u' .. network, 0, 0, 'WITHSCORES')
    if not own[1] or own[1] == node
      or uses(base .. 'u' .. network, node) + 1 >= tonumber(own[2]) then return {2} end
    yields = own[1] .. network
  end
  local member = redis.call('ZRANGE', base .. 'o' .. yields, 0, 0)[1]
  if not member then return {2} end
  local number = string.sub(member, 1, 4)
  local value = redis.call('GET', base .. 'k' .. number)
  redis.call('DEL', base .. 'k' .. number)
  forget(member)
  table.insert(answer, number)
  table.insert(answer, value and string.sub(value, 34, 65) or '')
end
local member, forgotten = ARGV[9] .. node .. network, now + life + rest
local owner = base .. 'o' .. node .. network
local value = ARGV[1] .. 'o' .. ARGV[2] .. ARGV[3] .. node .. network
redis.call('SET', KEYS[1], value, 'PX', life + rest)
redis.call('ZADD', base .. 'a', forgotten, member)
redis.call('ZADD', owner, forgotten + 1e13, member)
redis.call('ZINCRBY', base .. 'u' .. network, 1, node)
redis.call('ZINCRBY', base .. 'n', 1, network)
for _, key in ipairs({base .. 'a', owner, base .. 'u' .. network, base .. 'n'}) do
  redis.call('PEXPIRE', key, 2 * (life + rest))
end
return answer";

/// Ends a mailbox if the token is right and it has not ended. Arguments: token, the reason's code
/// as a byte, rest in ms, number.
const END_MAILBOX: &str = r"
local known = redis.call('GET', KEYS[1])
if not known or string.sub(known, 1, 32) ~= ARGV[1] or string.sub(known, 33, 33) ~= 'o'
  or redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2] .. string.sub(known, 34), 'PX', ARGV[3])
local time = redis.call('TIME')
local forgotten = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
local owner = string.sub(known, 74)
redis.call('ZADD', KEYS[2] .. 'a', 'XX', forgotten, ARGV[4] .. owner)
redis.call('ZADD', KEYS[2] .. 'o' .. owner, 'XX', forgotten, ARGV[4] .. owner)
return 1";

/// The stream of a mailbox has ended: no tracker has it, unless another stream took over.
const LEAVE_MAILBOX: &str = r"
local known = redis.call('GET', KEYS[1])
if not known or string.sub(known, 66, 73) ~= ARGV[1] then return 0 end
local value = string.sub(known, 1, 33) .. string.rep('\0', 40) .. string.sub(known, 74)
redis.call('SET', KEYS[1], value, 'KEEPTTL')
return 1";

/// Returns the value of a mailbox, and its time to live in ms.
const STATE_OF_MAILBOX: &str = r"
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}";

static SCRIPTS: LazyLock<[(ScriptName, &str, Script); 13]> = LazyLock::new(|| {
    [
        (ScriptName::Open, OPEN),
        (ScriptName::Refresh, REFRESH),
        (ScriptName::Finish, FINISH),
        (ScriptName::Close, CLOSE),
        (ScriptName::Put, PUT),
        (ScriptName::Remove, REMOVE),
        (ScriptName::Clean, CLEAN),
        (ScriptName::Read, READ),
        (ScriptName::Post, POST),
        (ScriptName::ClaimMailbox, CLAIM_MAILBOX),
        (ScriptName::EndMailbox, END_MAILBOX),
        (ScriptName::LeaveMailbox, LEAVE_MAILBOX),
        (ScriptName::StateOfMailbox, STATE_OF_MAILBOX),
    ]
    .map(|(name, code)| (name, code, Script::new(code)))
});

/// Returns the commands that make all scripts known to a server.
pub(super) fn load_scripts() -> impl Iterator<Item = Cmd> {
    SCRIPTS.iter().map(|(_, code, _)| {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(*code);
        command
    })
}

/// A command or a script with its arguments. It may be carried out twice.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    name: CallName,
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum CallName {
    Script(ScriptName),
    Command(&'static str),
}

impl Call {
    pub(super) fn script(name: ScriptName, keys: Vec<Vec<u8>>, arguments: Vec<Vec<u8>>) -> Call {
        Call {
            name: CallName::Script(name),
            keys,
            arguments,
        }
    }

    /// A plain command whose first argument is a key.
    pub(super) fn command(name: &'static str, key: Vec<u8>, arguments: Vec<Vec<u8>>) -> Call {
        Call {
            name: CallName::Command(name),
            keys: vec![key],
            arguments,
        }
    }

    /// Whether Redis answers only when there is something to tell.
    pub(super) fn waits(&self) -> bool {
        matches!(self.name, CallName::Command("BLPOP"))
    }

    pub(super) fn to_command(&self) -> Cmd {
        let mut command = Cmd::new();
        match self.name {
            CallName::Script(wanted) => {
                let hash = SCRIPTS
                    .iter()
                    .find(|(name, ..)| *name == wanted)
                    .map_or("", |(.., script)| script.get_hash());
                command.arg("EVALSHA").arg(hash).arg(self.keys.len());
            }
            CallName::Command(name) => _ = command.arg(name),
        }
        for part in self.keys.iter().chain(&self.arguments) {
            command.arg(part);
        }
        command
    }
}
