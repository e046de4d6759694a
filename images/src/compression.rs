//! The compressions of layers.

use kiln_oci::media_type;

/// The media type of a Docker layer in zstd's format.
pub(crate) const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// A compression of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// No compression: the layer is a plain tar.
    Uncompressed,
    /// gzip, one member.
    #[default]
    Gzip,
    /// zstd, a frame for each segment of the tar.
    Zstd,
}

/// The options for packing layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// The compression of new layers.
    pub compression: Compression,
    /// The compression level. The default is 6 for gzip and 3 for zstd.
    pub level: Option<u32>,
    /// `true` if layers of base images are recompressed when they have another compression.
    pub force: bool,
}

impl Compression {
    /// Returns the compression of a layer's media type, OCI's or Docker's. Returns `None` for other
    /// media types.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => Some(Self::Uncompressed),
            media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(Self::Gzip),
            media_type::OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Returns the media type of a layer with this compression: OCI's if `oci`, otherwise Docker's.
    pub const fn media_type(self, oci: bool) -> &'static str {
        match (self, oci) {
            (Self::Uncompressed, true) => media_type::OCI_LAYER,
            (Self::Uncompressed, false) => media_type::DOCKER_LAYER,
            (Self::Gzip, true) => media_type::OCI_LAYER_GZIP,
            (Self::Gzip, false) => media_type::DOCKER_LAYER_GZIP,
            (Self::Zstd, true) => media_type::OCI_LAYER_ZSTD,
            (Self::Zstd, false) => DOCKER_LAYER_ZSTD,
        }
    }

    /// Returns the value of the output key `compression`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl Packing {
    /// Returns the level of the compression, by default the usual one.
    pub(crate) fn level(self) -> u32 {
        match self.compression {
            Compression::Uncompressed => 0,
            Compression::Gzip => self.level.unwrap_or(6).min(9),
            Compression::Zstd => self.level.unwrap_or(3),
        }
    }
}
