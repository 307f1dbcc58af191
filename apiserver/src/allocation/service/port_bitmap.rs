//! The node ports in use, as upstream stores them: a RangeAllocation whose data is the bits of one big number, most
//! significant byte first.
//!
//! Pure. Upstream: `registry/core/service/allocator/bitmap.go` and the key `ranges/servicenodeports`.

use apimachinery::status::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use crate::allocation::SideWrite;

pub(super) const KEY: &str = "ranges/servicenodeports";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeAllocation {
    kind: String,
    api_version: String,
    #[serde(default)]
    metadata: serde_json::Value,
    range: String,
    #[serde(default)]
    data: String,
}

/// The ports of the range, and which are taken.
#[derive(Debug)]
pub(super) struct PortBitmap {
    first: u16,
    taken: Vec<bool>,
    revision: i64,
    changed: bool,
}

/// Why a port can't be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Refused {
    #[error("provided port is already allocated")]
    Taken,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    OutOfRange(u16, u16),
}

impl PortBitmap {
    /// From the stored value and its revision; an absent one is empty.
    pub(super) fn decode(ports: (u16, u16), stored: Option<(&[u8], i64)>) -> Result<Self, ApiError> {
        let size = usize::from(ports.1 - ports.0) + 1;
        let mut bitmap = Self { first: ports.0, taken: vec![false; size], revision: 0, changed: false };
        let Some((value, revision)) = stored else { return Ok(bitmap) };
        bitmap.revision = revision;
        let allocation: RangeAllocation = serde_json::from_slice(value).map_err(ApiError::internal)?;
        let first: u16 = match allocation.range.split_once('-').and_then(|(first, _)| first.parse().ok()) {
            Some(first) => first,
            None => {
                return Err(ApiError::internal(format!("unreadable node port range {:?}", allocation.range)));
            }
        };
        let data = STANDARD.decode(&allocation.data).map_err(ApiError::internal)?;
        for (byte, bits) in data.iter().rev().enumerate() {
            for bit in (0..8).filter(|bit| bits & (1 << bit) != 0) {
                // The stored range may be another than ours: what lies outside is not ours to hand out.
                let port = usize::from(first) + byte * 8 + bit;
                if let Some(taken) =
                    port.checked_sub(usize::from(bitmap.first)).and_then(|i| bitmap.taken.get_mut(i))
                {
                    *taken = true;
                }
            }
        }
        Ok(bitmap)
    }

    fn last(&self) -> u16 {
        self.first + u16::try_from(self.taken.len() - 1).unwrap_or(u16::MAX - self.first)
    }

    fn slot(&mut self, port: i32) -> Option<&mut bool> {
        let index = usize::try_from(port).ok()?.checked_sub(usize::from(self.first))?;
        self.taken.get_mut(index)
    }

    /// Takes a port that somebody asked for.
    pub(super) fn take(&mut self, port: i32) -> Result<(), Refused> {
        let (first, last) = (self.first, self.last());
        let slot = self.slot(port).ok_or(Refused::OutOfRange(first, last))?;
        if std::mem::replace(slot, true) {
            return Err(Refused::Taken);
        }
        self.changed = true;
        Ok(())
    }

    /// Takes any port: from the upper part first, since people choose from the lower.
    pub(super) fn take_any(&mut self) -> Option<i32> {
        let size = self.taken.len();
        let reserved = if size < 16 { 0 } else { (size / 32).clamp(16, 128).min(size) };
        let pick = |taken: &[bool], from: usize, to: usize| {
            let free: Vec<usize> = (from..to).filter(|index| !taken[*index]).collect();
            (!free.is_empty()).then(|| free[rand::rng().random_range(0..free.len())])
        };
        let index = pick(&self.taken, reserved, size).or_else(|| pick(&self.taken, 0, reserved))?;
        let port = i32::from(self.first) + i32::try_from(index).ok()?;
        self.take(port).ok().map(|()| port)
    }

    /// Gives a port back.
    pub(super) fn release(&mut self, port: i32) {
        if let Some(slot) = self.slot(port) {
            *slot = false;
            self.changed = true;
        }
    }

    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// The write that stores the bitmap, if nobody wrote it since it was read.
    pub(super) fn write(&self) -> Result<SideWrite, ApiError> {
        let mut data = vec![0u8; self.taken.len().div_ceil(8)];
        let length = data.len();
        for index in (0..self.taken.len()).filter(|index| self.taken[*index]) {
            data[length - 1 - index / 8] |= 1 << (index % 8);
        }
        let significant = data.iter().position(|byte| *byte != 0).unwrap_or(length);
        let allocation = RangeAllocation {
            kind: "RangeAllocation".to_owned(),
            api_version: "v1".to_owned(),
            metadata: serde_json::json!({}),
            range: format!("{}-{}", self.first, self.last()),
            data: STANDARD.encode(&data[significant..]),
        };
        let value = serde_json::to_vec(&allocation).map_err(ApiError::internal)?;
        Ok(SideWrite { key: KEY.to_owned(), expected_revision: self.revision, value: Some(value.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: (u16, u16) = (30000, 32767);

    fn stored(bitmap: &PortBitmap) -> PortBitmap {
        let write = bitmap.write().unwrap();
        PortBitmap::decode(PORTS, Some((&write.value.unwrap(), 7))).unwrap()
    }

    #[test]
    fn ports_survive_the_store() {
        let mut bitmap = PortBitmap::decode(PORTS, None).unwrap();
        for port in [30000, 30001, 30015, 32767] {
            bitmap.take(port).unwrap();
        }
        let mut again = stored(&bitmap);
        assert_eq!(again.take(30015), Err(Refused::Taken));
        assert_eq!(again.take(30016), Ok(()));
        again.release(30015);
        assert_eq!(again.take(30015), Ok(()));
        assert_eq!(again.write().unwrap().expected_revision, 7);
    }

    #[test]
    fn the_first_port_is_the_lowest_bit() {
        let mut bitmap = PortBitmap::decode(PORTS, None).unwrap();
        bitmap.take(30000).unwrap();
        bitmap.take(30009).unwrap();
        let value: serde_json::Value =
            serde_json::from_slice(&bitmap.write().unwrap().value.unwrap()).unwrap();
        assert_eq!(value["data"], STANDARD.encode([0b10, 0b1]));
        assert_eq!(value["range"], "30000-32767");
    }

    #[test]
    fn outside_the_range() {
        let mut bitmap = PortBitmap::decode(PORTS, None).unwrap();
        for port in [29999, 32768, 0, -1, 80] {
            assert_eq!(bitmap.take(port), Err(Refused::OutOfRange(30000, 32767)), "{port}");
        }
    }

    #[test]
    fn every_port_is_given_once_and_the_low_ones_last() {
        let mut bitmap = PortBitmap::decode((30000, 30099), None).unwrap();
        let mut given = Vec::new();
        while let Some(port) = bitmap.take_any() {
            given.push(port);
        }
        assert!(given[..84].iter().all(|port| *port >= 30016));
        given.sort_unstable();
        assert_eq!(given, (30000..=30099).collect::<Vec<_>>());
    }

    #[test]
    fn a_narrower_range_forgets_what_lies_outside() {
        let mut bitmap = PortBitmap::decode(PORTS, None).unwrap();
        [30000, 30500].into_iter().for_each(|port| bitmap.take(port).unwrap());
        let write = bitmap.write().unwrap();
        let mut narrow = PortBitmap::decode((30400, 30600), Some((&write.value.unwrap(), 1))).unwrap();
        assert_eq!(narrow.take(30500), Err(Refused::Taken));
        assert_eq!(narrow.take(30400), Ok(()));
    }
}
