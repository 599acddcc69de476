-- Kuafu's option in Geneve, for tshark and Wireshark:
--
--   tshark -X lua_script:kuafu.lua -r relay.pcapng -Y 'kuafu.label == 17 && kuafu.lane == 3'
--
-- The option (class 0xff4b, type 1) is drawn in pipeline/src/header/geneve.rs; what is inside a probe is read too:
-- stamp.sequence and so on.

local kuafu = Proto("kuafu", "Kuafu")

local CLASS, TYPE = 0xff4b, 0x81
local OPTION = 24

local f = kuafu.fields
f.label = ProtoField.uint32("kuafu.label", "Label", base.DEC, nil, 0xfffff000)
f.lane = ProtoField.uint32("kuafu.lane", "Lane", base.DEC, nil, 0x00000f00)
f.incarnation = ProtoField.uint32("kuafu.incarnation", "Incarnation", base.DEC, nil, 0x000000f0)
f.epoch = ProtoField.uint32("kuafu.epoch", "Key epoch", base.DEC, nil, 0x0000000c)
f.duplicate = ProtoField.bool("kuafu.duplicate", "Duplicate", 32, nil, 0x00000002)
f.reply = ProtoField.bool("kuafu.reply", "Reply", 32, nil, 0x00000001)
f.sequence = ProtoField.uint32("kuafu.sequence", "Sequence")
f.timestamp = ProtoField.uint32("kuafu.timestamp", "Timestamp (µs of the entry's boot clock; 0: none)")
f.tag = ProtoField.bytes("kuafu.tag", "Tag")
f.probe = ProtoField.bool("kuafu.probe", "Probe")

local geneve = Field.new("geneve.vni")

-- The option of a Geneve header that begins at `at`, if it is ours.
local function option(buffer, at)
  if buffer:len() < at + 8 then
    return nil
  end
  local first = at + 8
  local last = first + buffer(at, 1):bitfield(2, 6) * 4
  while first + 4 <= last and last <= buffer:len() do
    local length = 4 + buffer(first + 3, 1):bitfield(3, 5) * 4
    if buffer(first, 2):uint() == CLASS and buffer(first + 2, 1):uint() == TYPE and length == OPTION
        and first + OPTION <= last then
      return first
    end
    first = first + length
  end
  return nil
end

local function show(buffer, at, first, tree)
  local branch = tree:add(kuafu, buffer(first, OPTION))
  local word = buffer(first + 4, 4)
  for _, name in ipairs { "label", "lane", "incarnation", "epoch", "duplicate", "reply" } do
    branch:add(f[name], word)
  end
  branch:add(f.sequence, buffer(first + 8, 4))
  branch:add(f.timestamp, buffer(first + 12, 4))
  branch:add(f.tag, buffer(first + 16, 8))
  local is_probe = buffer(at + 1, 1):bitfield(0, 1) == 1
  branch:add(f.probe, buffer(at + 1, 1), is_probe)
  branch:append_text(string.format(", label %d, lane %d, sequence %d%s", word:bitfield(0, 20), word:bitfield(20, 4),
    buffer(first + 8, 4):uint(), is_probe and ", probe" or ""))
end

-- Geneve's own dissector knows the header and what is inside; this runs after it and adds the option.
function kuafu.dissector(buffer, packet, tree)
  for _, vni in ipairs { geneve() } do
    -- The VNI's field begins four octets into the header.
    local at = vni.offset - 4
    local first = at >= 0 and option(buffer, at)
    if first then
      show(buffer, at, first, tree)
    end
  end
end

register_postdissector(kuafu)

-- On its way to the prober, which fragments it, a packet has its errand in place of the Ethernet addresses
-- (pipeline/src/header/errand.rs), and this ethertype.
DissectorTable.get("ethertype"):add(0x88b6, Dissector.get("ip"))

-- STAMP with the Direct Measurement TLV, as Kuafu's probes have it (pipeline/src/header/stamp.rs). Wireshark's own
-- dissector of TWAMP wants to have seen a control session, and takes these times for NTP's; they are since boot.
local stamp = Proto("stamp", "Simple Two-Way Active Measurement Protocol")

local LENGTH, PORT = 60, 862

local s = stamp.fields
s.sequence = ProtoField.uint32("stamp.sequence", "Sequence")
s.sent = ProtoField.relative_time("stamp.sent", "Sent (T1; T3 from a reflector)")
s.received = ProtoField.relative_time("stamp.received", "Received by the reflector (T2)")
s.sender_sequence = ProtoField.uint32("stamp.sender_sequence", "Sender's sequence")
s.first_sent = ProtoField.relative_time("stamp.first_sent", "Sent by the sender (T1)")
s.data_sent = ProtoField.uint32("stamp.data_sent", "Data packets that the sender had sent")
s.data_received = ProtoField.uint32("stamp.data_received", "Data packets that the reflector had received")
s.data_returned = ProtoField.uint32("stamp.data_returned", "Data packets that the reflector had sent")

local function time(branch, field, range)
  branch:add(field, range, NSTime.new(range(0, 4):uint(), range(4, 4):uint()))
end

function stamp.dissector(buffer, packet, tree)
  if buffer:len() < LENGTH then
    return 0
  end
  local branch = tree:add(stamp, buffer(0, LENGTH))
  branch:add(s.sequence, buffer(0, 4))
  time(branch, s.sent, buffer(4, 8))
  branch:add(s.data_sent, buffer(48, 4))
  if packet.src_port == PORT then
    time(branch, s.received, buffer(16, 8))
    branch:add(s.sender_sequence, buffer(24, 4))
    time(branch, s.first_sent, buffer(28, 8))
    branch:add(s.data_received, buffer(52, 4))
    branch:add(s.data_returned, buffer(56, 4))
  end
  return LENGTH
end

DissectorTable.get("udp.port"):add(PORT, stamp)
