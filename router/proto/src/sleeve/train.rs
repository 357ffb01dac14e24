//! Cuts a super-frame into datagrams and puts the same super-frame together again.
//!
//! ```text
//!    0        1            4        5        6        7        8           10          12
//!   ┌────────┬────────────┬────────┬────────┬────────┬────────┬───────────┬───────────┬──────────┬──────────
//!   │ 2      │ segment    │ index  │ cars   │ gso    │ headers│ gso size  │ chunk     │ headers  │ payload
//!   └────────┴────────────┴────────┴────────┴────────┴────────┴───────────┴───────────┴──────────┴──────────
//! ```
//!
//! A super-frame of up to 64 KiB crosses the TAP in one call and travels as a train of cars. Every car has the inner
//! headers (their length is `headers`) and payload from `index × chunk`; every car but the last has `chunk` bytes of
//! it, and for UDP `chunk` is a multiple of `gso size`. `gso` is the virtio type, with 0x80 for congestion marks. The
//! cars of a train have consecutive counters in one lane, so (lane, counter − index) names the train.
//!
//! **Invariant.** What [`Join`] yields is a valid super-frame: the very same if nothing was lost, else a shorter one
//! whose bytes are a run of the original's.
//! **Failure policy.** A lost or overtaking car costs its own bytes: what was gathered so far is delivered as it is,
//! and the next car begins anew.

use arrayvec::ArrayVec;
use weft_types::Segment;

use super::inner::{Family, Layers, MAX_HEADERS, Remains, Transport};
use super::payload::{self, Kind};
use super::vnet::{Checksum, Gso, Vnet};
use super::{MAX_SUPER_FRAME, Malformed, SessionIndex, lane};

/// How long a car is before the inner headers.
pub const HEADER: usize = 12;

/// The most cars of a train: what the slots have room for.
pub const MAX_CARS: usize = 192;

const ECN: u8 = 0x80;

/// The head of a car.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Car {
    /// On which network.
    pub segment: Segment,
    /// Which car.
    pub index: u8,
    /// How many there are.
    pub cars: u8,
    /// What kind of super-frame.
    pub gso: Gso,
    /// Congestion marks.
    pub ecn: bool,
    /// How long the inner headers are.
    pub headers: u8,
    /// How much payload each segment has.
    pub gso_size: u16,
    /// How much payload every car but the last has.
    pub chunk: u16,
}

impl Car {
    /// Reads a plaintext that begins with a car's head, and checks it against the plaintext's length.
    pub fn decode(plain: &[u8]) -> Result<Self, Malformed> {
        let (&[_, s0, s1, s2, index, cars, gso, headers, g0, g1, c0, c1], rest) = plain
            .split_first_chunk::<HEADER>()
            .ok_or(Malformed::Truncated)?;
        let car = Self {
            segment: Segment::from_bytes([s0, s1, s2]),
            index,
            cars,
            gso: Gso::from_byte(gso & !ECN).ok_or(Malformed::Unknown)?,
            ecn: gso & ECN != 0,
            headers,
            gso_size: u16::from_be_bytes([g0, g1]),
            chunk: u16::from_be_bytes([c0, c1]),
        };
        let payload = rest
            .len()
            .checked_sub(usize::from(headers))
            .ok_or(Malformed::Truncated)?;
        let chunk = usize::from(car.chunk);
        let whole_segments = match car.gso {
            Gso::None => return Err(Malformed::Inconsistent),
            Gso::Tcp4 | Gso::Tcp6 => car.gso_size > 0,
            Gso::Udp => car.gso_size > 0 && car.chunk.is_multiple_of(car.gso_size),
        };
        let full = if car.is_last() {
            payload > 0 && payload <= chunk
        } else {
            payload == chunk && chunk > 0
        };
        let bounded = usize::from(headers) + usize::from(index) * chunk + payload;
        if whole_segments && full && index < cars && bounded <= MAX_SUPER_FRAME {
            Ok(car)
        } else {
            Err(Malformed::Inconsistent)
        }
    }

    /// As it travels.
    pub fn encode(self) -> [u8; HEADER] {
        let [kind, s0, s1, s2] = payload::encode(Kind::Car, self.segment);
        let gso = self.gso.byte() | if self.ecn { ECN } else { 0 };
        let [g0, g1] = self.gso_size.to_be_bytes();
        let [c0, c1] = self.chunk.to_be_bytes();
        [
            kind,
            s0,
            s1,
            s2,
            self.index,
            self.cars,
            gso,
            self.headers,
            g0,
            g1,
            c0,
            c1,
        ]
    }

    /// Whether nothing comes after it.
    pub const fn is_last(self) -> bool {
        self.index as u16 + 1 == self.cars as u16
    }
}

/// Why a super-frame cannot travel as a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTrain {
    /// Its UDP datagrams do not fit in ours one by one: [`udp_segment`] makes frames of them, which are split.
    Segment,
    /// Its headers are not understood, or contradict what the kernel says of it.
    Unknown,
}

/// How a super-frame is cut.
#[derive(Clone, Debug)]
pub struct Train {
    /// The first car's head; the others differ in their index.
    first: Car,
    /// How much payload there is.
    payload: usize,
}

impl Train {
    /// Decides how to cut a frame of `len` bytes, of which `start` holds at least the headers, into datagrams of
    /// `datagram` bytes.
    pub fn plan(
        segment: Segment,
        vnet: Vnet,
        start: &[u8],
        len: usize,
        datagram: usize,
    ) -> Result<Self, NoTrain> {
        let layers = Layers::parse(start).ok_or(NoTrain::Unknown)?;
        let headers = usize::from(layers.headers);
        let expected = Checksum {
            start: u16::from(layers.l4),
            offset: layers.transport.checksum_offset(),
        };
        let understood = carries(vnet.gso, &layers) && vnet.checksum == Some(expected);
        if !understood || vnet.gso_size == 0 || len > MAX_SUPER_FRAME || len <= headers {
            return Err(NoTrain::Unknown);
        }
        let room = datagram
            .checked_sub(lane::OVERHEAD + HEADER + headers)
            .and_then(|room| u16::try_from(room).ok())
            .ok_or(NoTrain::Unknown)?;
        let chunk = match layers.transport {
            Transport::Tcp => room,
            Transport::Udp => room - room % vnet.gso_size,
        };
        let payload = len - headers;
        let cars = payload.div_ceil(usize::from(chunk).max(1));
        let cars = u8::try_from(cars)
            .ok()
            .filter(|_| chunk > 0 && cars <= MAX_CARS)
            .ok_or(match layers.transport {
                Transport::Tcp => NoTrain::Unknown,
                Transport::Udp => NoTrain::Segment,
            })?;
        let first = Car {
            segment,
            index: 0,
            cars,
            gso: vnet.gso,
            ecn: vnet.ecn,
            headers: layers.headers,
            gso_size: vnet.gso_size,
            chunk,
        };
        Ok(Self { first, payload })
    }

    /// The head of one car.
    pub fn car(&self, index: u8) -> Car {
        Car {
            index,
            ..self.first
        }
    }

    /// How many cars there are.
    pub const fn cars(&self) -> u8 {
        self.first.cars
    }

    /// How long the inner headers are.
    pub fn headers(&self) -> usize {
        usize::from(self.first.headers)
    }

    /// How much payload every car but the last has.
    pub fn chunk(&self) -> usize {
        usize::from(self.first.chunk)
    }

    /// How much payload one car has.
    pub fn payload_of(&self, index: u8) -> usize {
        self.payload
            .saturating_sub(usize::from(index) * self.chunk())
            .min(self.chunk())
    }
}

fn carries(gso: Gso, layers: &Layers) -> bool {
    match gso {
        Gso::None => false,
        Gso::Tcp4 => layers.family == Family::V4 && layers.transport == Transport::Tcp,
        Gso::Tcp6 => layers.family == Family::V6 && layers.transport == Transport::Tcp,
        Gso::Udp => layers.transport == Transport::Udp,
    }
}

/// Makes an ordinary frame of the `number`th datagram of a UDP super-frame, whole in `frame`, in `out`. `None` when
/// there is no such datagram.
pub fn udp_segment(frame: &[u8], gso_size: u16, number: u16, out: &mut Vec<u8>) -> Option<Vnet> {
    let layers = Layers::parse(frame).filter(|layers| layers.transport == Transport::Udp)?;
    let (head, payload) = frame.split_at_checked(usize::from(layers.headers))?;
    let start = usize::from(number) * usize::from(gso_size);
    let rest = payload.get(start..).filter(|rest| !rest.is_empty())?;
    let part = &rest[..rest.len().min(usize::from(gso_size))];
    out.clear();
    out.extend_from_slice(head);
    out.extend_from_slice(part);
    let remains = Remains {
        skipped: 0,
        payload: u16::try_from(part.len()).ok()?,
        tail: rest.len() == part.len(),
        segments_skipped: number,
    };
    layers.shorten(out, remains).then_some(())?;
    Some(Vnet::plain(Some(Checksum {
        start: u16::from(layers.l4),
        offset: layers.transport.checksum_offset(),
    })))
}

/// Which train a car belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainId {
    /// The session it came in.
    pub session: SessionIndex,
    /// The lane.
    pub lane: u16,
    /// The counter of its first car.
    pub base: u64,
}

/// Some bytes in one of the caller's receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which buffer.
    pub buffer: usize,
    /// Where they begin.
    pub start: usize,
    /// How many.
    pub len: usize,
}

/// The most pieces of a super-frame: a car's number of its train has eight bits.
pub const MAX_SPANS: usize = 256;

/// The super-frame that is arriving: spans of plaintext where they were received, nothing copied.
#[derive(Default)]
pub struct Join {
    open: Option<Open>,
    spans: ArrayVec<Span, MAX_SPANS>,
}

#[derive(Clone, Copy)]
struct Open {
    id: TrainId,
    /// The first that came.
    first: Car,
    /// The index that comes next.
    next: u16,
    payload: usize,
}

impl Join {
    /// Whether anything has been gathered that is to be finished.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the last car has come.
    pub fn is_complete(&self) -> bool {
        self.open
            .is_some_and(|open| open.next == u16::from(open.first.cars))
    }

    /// Whether a car is the one that comes next. If not, [`Self::finish`] what is open first.
    pub fn continues(&self, id: TrainId, car: Car) -> bool {
        self.open.is_some_and(|open| {
            let expected = Car {
                index: car.index,
                ..open.first
            };
            open.id == id && open.next == u16::from(car.index) && expected == car
        })
    }

    /// Takes a car; `rest` is what follows its head. One that does not continue the open train begins another, and what
    /// was open is lost.
    pub fn push(&mut self, id: TrainId, car: Car, rest: Span) {
        let headers = usize::from(car.headers);
        let payload = rest.len.saturating_sub(headers);
        if self.continues(id, car)
            && let Some(open) = &mut self.open
        {
            open.next += 1;
            open.payload += payload;
            self.spans.push(Span {
                buffer: rest.buffer,
                start: rest.start + headers,
                len: payload,
            });
        } else {
            self.open = Some(Open {
                id,
                first: car,
                next: u16::from(car.index) + 1,
                payload,
            });
            self.spans.clear();
            self.spans.push(rest);
        }
    }

    /// The pieces of the super-frame, in order: the first begins with the headers.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// On which network it is.
    pub fn segment(&self) -> Option<Segment> {
        self.open.map(|open| open.first.segment)
    }

    /// Which session it came in.
    pub fn session(&self) -> Option<SessionIndex> {
        self.open.map(|open| open.id.session)
    }

    /// Closes the train: makes the headers, which `head` (the first of [`Self::spans`]) begins with, say what is there,
    /// and returns what to tell the kernel. The spans stay until the next push.
    pub fn finish(&mut self, head: &mut [u8]) -> Result<Vnet, Malformed> {
        let Open {
            first,
            next,
            payload,
            ..
        } = self.open.take().ok_or(Malformed::Truncated)?;
        let layers = Layers::parse(&head[..head.len().min(usize::from(first.headers))])
            .filter(|layers| layers.headers == first.headers && carries(first.gso, layers))
            .ok_or(Malformed::Inconsistent)?;
        let tail = next == u16::from(first.cars);
        let skipped = usize::from(first.index) * usize::from(first.chunk);
        let longest = match layers.family {
            Family::V4 => usize::from(layers.l3) + 65_535,
            Family::V6 => usize::from(layers.l3) + 40 + 65_535,
        };
        if usize::from(first.headers) + payload > longest {
            return Err(Malformed::Inconsistent);
        }
        if skipped > 0 || !tail {
            let segments = skipped.div_ceil(usize::from(first.gso_size).max(1));
            let remains = Remains {
                skipped: u16::try_from(skipped).map_err(|_| Malformed::Inconsistent)?,
                payload: u16::try_from(payload).map_err(|_| Malformed::Inconsistent)?,
                tail,
                segments_skipped: u16::try_from(segments).map_err(|_| Malformed::Inconsistent)?,
            };
            if !layers.shorten(head, remains) {
                return Err(Malformed::Inconsistent);
            }
        }
        let single = payload <= usize::from(first.gso_size);
        Ok(Vnet {
            checksum: Some(Checksum {
                start: u16::from(layers.l4),
                offset: layers.transport.checksum_offset(),
            }),
            gso: if single { Gso::None } else { first.gso },
            ecn: !single && first.ecn && first.index == 0,
            headers: u16::from(first.headers),
            gso_size: if single { 0 } else { first.gso_size },
        })
    }
}

const _: () = assert!(MAX_CARS < 256 && MAX_HEADERS < 256);

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;
