//! The compressions of kombu's registry (spec 1.8), with a bound on what comes out.

use super::CodecError;

/// A compression of bodies, as Celery's setting `task_compression` names it.
///
/// kombu 5.7.0 `compression.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// `gzip` and `zlib`: in fact zlib's format (RFC 1950).
    Zlib,
    /// `bzip2`.
    Bzip2,
    /// `lzma` and `xz`: an .xz container.
    Lzma,
    /// `brotli`; a Python reader needs the package of that name.
    Brotli,
    /// `zstd`; a Python reader needs Python 3.14 or the package `backports.zstd`.
    Zstd,
}

impl Compression {
    /// All compressions.
    pub const ALL: [Self; 5] = [Self::Zlib, Self::Bzip2, Self::Lzma, Self::Brotli, Self::Zstd];

    /// Returns its names in settings and options, the usual one first.
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Self::Zlib => ["gzip", "zlib"],
            Self::Bzip2 => ["bzip2", "bzip"],
            Self::Lzma => ["lzma", "xz"],
            Self::Brotli => ["brotli", "brotli"],
            Self::Zstd => ["zstd", "zstandard"],
        }
    }

    /// Returns the value of the header `compression`.
    pub fn header(self) -> &'static str {
        match self {
            Self::Zlib => "application/x-gzip",
            Self::Bzip2 => "application/x-bz2",
            Self::Lzma => "application/x-lzma",
            Self::Brotli => "application/x-brotli",
            Self::Zstd => "application/zstd",
        }
    }

    /// Finds the compression of a header; kombu takes aliases there as well.
    pub fn of_header(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.header() == text || one.names().contains(&text))
    }

    /// Compresses bytes, with the level that Python's module has as default or one near to it.
    ///
    /// # Errors
    /// [`CodecError::NotBuilt`] without the feature `compression`.
    pub fn compress(self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        #[cfg(feature = "compression")]
        return self::codecs::compress(self, bytes)
            .map_err(|error| CodecError::broken("input of a compressor", error));
        #[cfg(not(feature = "compression"))]
        {
            let _unused = bytes;
            Err(Self::not_built())
        }
    }

    /// Decompresses bytes to at most `max` bytes.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] as soon as there are more, before they are all held;
    /// [`CodecError::Broken`]; [`CodecError::NotBuilt`] without the feature `compression`.
    pub fn decompress(self, bytes: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
        #[cfg(feature = "compression")]
        return self::codecs::decompress(self, bytes, max);
        #[cfg(not(feature = "compression"))]
        {
            let _unused = (bytes, max);
            Err(Self::not_built())
        }
    }

    #[cfg(not(feature = "compression"))]
    fn not_built() -> CodecError {
        CodecError::NotBuilt { what: "compressions", feature: "compression" }
    }
}

impl std::str::FromStr for Compression {
    type Err = String;

    /// Reads a name, an alias or a MIME type.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::of_header(text).ok_or_else(|| {
            format!("{text:?} is no compression; use gzip, bzip2, lzma, brotli or zstd")
        })
    }
}

#[cfg(feature = "compression")]
mod codecs {
    use super::{CodecError, Compression};
    use crate::limits::WINDOW_BYTES_MAX;
    use std::io::{self, Read, Write as _};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    pub(super) fn compress(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let out = Vec::new();
        match compression {
            Compression::Zlib => {
                let mut writer = flate2::write::ZlibEncoder::new(out, flate2::Compression::new(6));
                writer.write_all(bytes)?;
                writer.finish()
            }
            Compression::Bzip2 => {
                let mut writer = bzip2::write::BzEncoder::new(out, bzip2::Compression::best());
                writer.write_all(bytes)?;
                writer.finish()
            }
            Compression::Lzma => {
                let mut options = lzma_rust2::XzOptions::with_preset(6);
                // A dictionary as large as the input is enough, and far less to set up than 8 MiB.
                let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                options.lzma_options.dict_size = options.lzma_options.dict_size.min(size.max(4096));
                let mut writer = lzma_rust2::XzWriter::new(out, options)?;
                writer.write_all(bytes)?;
                writer.finish()
            }
            Compression::Brotli => {
                // Python's defaults: quality 11, window 22.
                let mut writer = brotli::CompressorWriter::new(out, 4096, 11, 22);
                writer.write_all(bytes)?;
                Ok(writer.into_inner())
            }
            Compression::Zstd => {
                let level = ruzstd::encoding::CompressionLevel::Fastest;
                Ok(with_size(ruzstd::encoding::compress_to_vec(bytes, level), bytes.len() as u64))
            }
        }
    }

    /// A zstd frame that says how long its content is, which ours does not by itself and kombu before
    /// 5.7 insists on (kombu 5.6 compression.py, `ZstdDecompressor().decompress`). The size stands behind
    /// the magic number, the descriptor and the window (RFC 8878, 3.1.1.1); 11 in the descriptor's first
    /// bits is a size of eight bytes.
    fn with_size(mut frame: Vec<u8>, size: u64) -> Vec<u8> {
        const DESCRIPTOR: usize = 4;
        const NO_SIZE: u8 = 0b1110_0011;
        if let Some(descriptor) = frame.get_mut(DESCRIPTOR).filter(|bits| **bits & NO_SIZE == 0) {
            *descriptor |= 0b1100_0000;
            let behind_window = DESCRIPTOR + 2;
            frame.splice(behind_window..behind_window, size.to_le_bytes());
        }
        frame
    }

    pub(super) fn decompress(
        compression: Compression,
        bytes: &[u8],
        max: usize,
    ) -> Result<Vec<u8>, CodecError> {
        let what = compression.header();
        // The decoders are others' code on hostile input: a bug in one must not end a worker.
        let caught = catch_unwind(AssertUnwindSafe(|| read(compression, bytes, max)));
        match caught {
            Ok(Ok(out)) if out.len() > max => Err(CodecError::TooLarge { what: "bytes", max }),
            Ok(Ok(out)) => Ok(out),
            Ok(Err(error)) => Err(CodecError::broken(what, error)),
            Err(_panic) => Err(CodecError::broken(what, "its decoder gave up")),
        }
    }

    /// Reads one byte more than allowed, if there is one.
    fn read(compression: Compression, bytes: &[u8], max: usize) -> io::Result<Vec<u8>> {
        let limit = max as u64 + 1;
        let mut out = Vec::new();
        match compression {
            Compression::Zlib => {
                flate2::read::ZlibDecoder::new(bytes).take(limit).read_to_end(&mut out)?
            }
            Compression::Bzip2 => {
                bzip2::read::MultiBzDecoder::new(bytes).take(limit).read_to_end(&mut out)?
            }
            Compression::Lzma => {
                let kib = WINDOW_BYTES_MAX / 1024;
                let reader = lzma_rust2::XzReader::new_mem_limit(bytes, true, kib);
                reader.take(limit).read_to_end(&mut out)?
            }
            Compression::Brotli => {
                brotli::Decompressor::new(bytes, 4096).take(limit).read_to_end(&mut out)?
            }
            Compression::Zstd => return zstd(bytes, limit),
        };
        Ok(out)
    }

    /// Python's zstd reads all frames of a body.
    fn zstd(mut bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let window = u64::from(WINDOW_BYTES_MAX);
            let decoder =
                ruzstd::decoding::StreamingDecoder::new_with_max_window_size(&mut bytes, window);
            let decoder = decoder.map_err(io::Error::other)?;
            decoder.take(limit.saturating_sub(out.len() as u64)).read_to_end(&mut out)?;
            if bytes.is_empty() || out.len() as u64 >= limit {
                return Ok(out);
            }
        }
    }
}

#[cfg(all(test, feature = "compression"))]
mod tests {
    use super::*;

    #[test]
    fn zstd_frames_say_how_long_their_content_is() {
        for length in [0, 1, 300, 200_000] {
            let text = vec![b'a'; length];
            let frame = Compression::Zstd.compress(&text).unwrap();
            assert_eq!(frame[..4], [0x28, 0xb5, 0x2f, 0xfd]);
            assert_eq!(frame[4] >> 6, 3, "the size has eight bytes");
            assert_eq!(frame[6..14], (length as u64).to_le_bytes());
            let read = Compression::Zstd.decompress(&frame, length + 1).unwrap();
            assert!(read == text, "{length} bytes come back");
        }
    }
}
