//! Which keys a request means, in etcd's notation of a key and the end of a range.

use bytes::Bytes;
use std::ops::Bound;

/// Stands as the end of a range for "no end".
const NO_END: &[u8] = b"\0";

/// What a map's `range` takes.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// One key where `range_end` is empty; all keys from `key` on where it is a zero byte; else the keys from `key` up to and
/// without `range_end`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyRange {
    pub key: Bytes,
    pub range_end: Bytes,
}

impl KeyRange {
    pub fn one(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), range_end: Bytes::new() }
    }

    pub fn between(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Self {
        Self { key: key.into(), range_end: range_end.into() }
    }

    pub fn from_key(key: impl Into<Bytes>) -> Self {
        Self::between(key, NO_END)
    }

    pub fn all() -> Self {
        Self::from_key(NO_END)
    }

    /// The keys that begin with `prefix`; all where it is empty.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        if prefix.is_empty() {
            return Self::all();
        }
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return Self::between(prefix, end);
            }
        }
        Self::from_key(prefix)
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.range_end[..] {
            [] => key == self.key,
            NO_END => key >= &self.key[..],
            end => key >= &self.key[..] && key < end,
        }
    }

    pub(crate) fn is_endless(&self) -> bool {
        self.range_end == NO_END
    }

    /// Whether it ends before it begins, which every request but a watch takes for a range without keys.
    pub(crate) fn is_inverted(&self) -> bool {
        !self.range_end.is_empty() && !self.is_endless() && self.key >= self.range_end
    }

    /// As bounds of a map's keys; `None` where no key can be in it.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let from = Bound::Included(&self.key[..]);
        match &self.range_end[..] {
            [] => Some((from, from)),
            NO_END => Some((from, Bound::Unbounded)),
            _ if self.is_inverted() => None,
            end => Some((from, Bound::Excluded(end))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_the_keys_that_etcd_means() {
        assert!(KeyRange::one("a").contains(b"a") && !KeyRange::one("a").contains(b"a\0"));
        assert!(KeyRange::from_key("b").contains(b"\xff") && !KeyRange::from_key("b").contains(b"a"));
        assert!(KeyRange::between("b", "d").contains(b"c") && !KeyRange::between("b", "d").contains(b"d"));
        assert!(KeyRange::prefix("a/").contains(b"a/\xff") && !KeyRange::prefix("a/").contains(b"a0"));
        assert_eq!(KeyRange::prefix(&b"a\xff"[..]), KeyRange::between(&b"a\xff"[..], "b"));
        assert_eq!(KeyRange::prefix(&b"\xff"[..]), KeyRange::from_key(&b"\xff"[..]));
        assert_eq!(KeyRange::prefix(""), KeyRange::all());
        assert!(
            !KeyRange::between("d", "b").contains(b"c") && KeyRange::between("d", "b").bounds().is_none()
        );
    }
}
