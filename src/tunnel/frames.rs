//! Where WebSocket frames begin in what the app sends (RFC 6455 §5.2), so that a frame of our own
//! can be put between two. What is in the frames is not looked at.

/// Follows one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The header of the present frame, as far as it came.
    head: [u8; 10],
    head_len: usize,
    payload_left: u64,
    /// Nothing may follow: a close frame was sent, or what is sent are no frames.
    over: bool,
}

const CLOSE: u8 = 0x8;
const MASKED: u8 = 0x80;

impl Frames {
    /// These bytes were sent.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.over {
            let whole = self.head_whole();
            if self.head_len < whole {
                let count = (whole - self.head_len).min(bytes.len());
                self.head[self.head_len..self.head_len + count].copy_from_slice(&bytes[..count]);
                self.head_len += count;
                bytes = &bytes[count..];
                if self.head_len == self.head_whole() {
                    self.begin();
                }
                continue;
            }
            let count = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
            self.payload_left -= count as u64;
            bytes = &bytes[count..];
            self.end_if_whole();
        }
    }

    /// A frame of our own may be sent now.
    pub(super) fn is_between(&self) -> bool {
        self.head_len == 0 && !self.over
    }

    /// How long the header is, as far as that is known.
    fn head_whole(&self) -> usize {
        match self.head[1] & !MASKED {
            _ if self.head_len < 2 => 2,
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn begin(&mut self) {
        let [first, second, rest @ ..] = self.head;
        self.payload_left = match second & !MASKED {
            126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
            127 => u64::from_be_bytes(rest),
            length => u64::from(length),
        };
        // A server masks nothing.
        self.over = second & MASKED != 0 || first & 0xf == CLOSE;
        self.end_if_whole();
    }

    fn end_if_whole(&mut self) {
        if self.payload_left == 0 {
            self.head_len = 0;
        }
    }
}

/// A close frame of a server with a status code (RFC 6455 §7.4.1).
pub(super) fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x80 | CLOSE, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(length as u8),
            126..65536 => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    #[test]
    fn frames_of_every_length_end_where_they_end_however_they_come() {
        let lengths = [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000, 0];
        let frames: Vec<Vec<u8>> = lengths.iter().map(|length| frame(0xc2, *length)).collect();
        let all = frames.concat();
        for piece in [1, 2, 3, 7, 1024, all.len()] {
            let (mut ends, mut at) = (Vec::new(), 0);
            for frame in &frames {
                at += frame.len();
                ends.push(at);
            }
            let (mut following, mut sent) = (Frames::default(), 0);
            assert!(following.is_between());
            for part in all.chunks(piece) {
                following.follow(part);
                sent += part.len();
                assert_eq!(following.is_between(), ends.contains(&sent), "{sent} by {piece}");
            }
        }
    }

    #[test]
    fn nothing_follows_a_close_or_what_is_no_frame() {
        for last in [&close(1000)[..], &[0x82, 0x81, 0, 0, 0, 0, 1], b"HTTP/1.1 200 OK\r\n"] {
            let mut frames = Frames::default();
            frames.follow(&frame(0x81, 5));
            frames.follow(last);
            assert!(!frames.is_between(), "{last:?}");
        }
        assert_eq!(close(1008), [0x88, 2, 0x03, 0xf0]);
    }
}
