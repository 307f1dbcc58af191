//! Where the last lines of a log begin, found from its end. Upstream's concept: `pkg/util/tail`.

use std::io::{self, Read, Seek, SeekFrom};

const BLOCK: u64 = 8192;

/// The offset at which the last `lines` lines begin. A last line without a newline counts too.
pub fn find_start(file: &mut (impl Read + Seek), lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut seen = 0;
    let mut block = Vec::new();
    let mut at = end;
    while at > 0 {
        let start = at.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        // Appending goes on meanwhile: never read past where we have been.
        file.take(at - start).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = start + index as u64;
            if *byte != b'\n' || position + 1 == end {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(position + 1);
            }
        }
        at = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn starts() {
        let find = |text: &str, lines: u64| find_start(&mut Cursor::new(text.as_bytes()), lines).unwrap();
        for (text, lines, start) in [
            ("", 3, 0),
            ("a\nb\nc\n", 0, 6),
            ("a\nb\nc\n", 1, 4),
            ("a\nb\nc", 1, 4),
            ("a\nb\nc\n", 2, 2),
            ("a\nb\nc\n", 3, 0),
            ("a\nb\nc\n", 9, 0),
            ("\n\n\n", 2, 1),
        ] {
            assert_eq!(find(text, lines), start, "{text:?} {lines}");
        }
        let long = "x".repeat(20_000) + "\n" + &"y".repeat(9_000) + "\n";
        assert_eq!(find(&long, 1), 20_001);
        assert_eq!(find(&long, 2), 0);
    }
}
