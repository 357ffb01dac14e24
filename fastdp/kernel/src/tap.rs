//! Opens a TAP device: the end of the virtual Ethernet that lies in userspace.
//!
//! ```text
//!   read/write:  | virtio_net_hdr, 10 bytes | Ethernet header | payload, up to 64 KiB |
//! ```
//!
//! With segmentation offload a frame is what a socket wrote in one go, not what fits a wire: its header says where to cut
//! it and which checksum is still to be filled in (virtio 1.2 §5.1.6). All integers of the header are little-endian, on
//! every machine. What the kernel may hand over is [`Tap::offload`]; what is handed to the kernel may always be a
//! super-frame, for the host's own stack cuts it where a port needs that.
//!
//! **Invariant.** The device lives as long as its descriptors: a process that dies takes its TAP with it.

use std::ffi::{CStr, c_int, c_short, c_uint};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// The bytes before each frame: `struct virtio_net_hdr` without the count of merged buffers, which a TAP does not use.
pub const VNET_HEADER_LEN: usize = 10;

/// Where the kernel hands out TAP devices.
pub const TUN_DEVICE: &str = "/dev/net/tun";

/// What the kernel may leave undone in the frames it hands over. Each level includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offload {
    /// Nothing: every frame fits the MTU and has its checksum.
    None,
    /// Transport checksums.
    Checksum,
    /// And TCP segmentation, over IPv4 and IPv6, with ECN.
    Tcp,
    /// And UDP segmentation, over IPv4 and IPv6 (Linux 6.2).
    TcpAndUdp,
}

impl Offload {
    /// From the most to the least: a kernel refuses what it does not know, so the first that it takes is the best.
    const ALL: [Self; 4] = [Self::TcpAndUdp, Self::Tcp, Self::Checksum, Self::None];

    const fn flags(self) -> c_uint {
        match self {
            Self::None => 0,
            Self::Checksum => libc::TUN_F_CSUM,
            Self::Tcp => {
                Self::Checksum.flags() | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN
            }
            Self::TcpAndUdp => Self::Tcp.flags() | libc::TUN_F_USO4 | libc::TUN_F_USO6,
        }
    }
}

/// How to open a TAP device.
#[derive(Clone, Copy, Debug)]
pub struct TapOptions {
    /// The most that the kernel may leave undone; a kernel that knows less is asked for less.
    pub offload: Offload,
}

impl Default for TapOptions {
    fn default() -> Self {
        Self {
            offload: Offload::TcpAndUdp,
        }
    }
}

/// A TAP device. It never blocks.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    offload: Offload,
}

impl Tap {
    /// Creates the device `name`, which must not exist: `EBUSY` says that it does.
    ///
    /// `ENOENT` and `ENODEV` say that this machine has no [`TUN_DEVICE`], `EPERM` that CAP_NET_ADMIN is missing.
    pub fn open(name: &str, options: TapOptions) -> io::Result<Self> {
        let (file, name) = attach(name)?;
        let offload = set_offload(&file, options.offload)?;
        Ok(Self {
            file,
            name,
            offload,
        })
    }

    /// Makes a second handle of the same device.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            name: self.name.clone(),
            offload: self.offload,
        })
    }

    /// Takes one frame with its header, cut to the buffers' length; `WouldBlock` when none waits.
    pub fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&self.file).read_vectored(buffers)
    }

    /// Gives one frame, header first, to the kernel. `EINVAL` says that the header contradicts the frame; `EIO` that the
    /// device is down.
    pub fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(buffers)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel leaves undone in the frames it hands over.
    pub fn offload(&self) -> Offload {
        self.offload
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Opens a descriptor and ties it to a new device `name`.
fn attach(name: &str) -> io::Result<(File, String)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_DEVICE)?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let name = set_interface(&file, name, flags)?;
    set_int(&file, libc::TUNSETVNETLE, 1)?;
    set_int(
        &file,
        libc::TUNSETVNETHDRSZ,
        c_int::try_from(VNET_HEADER_LEN).map_err(io::Error::other)?,
    )?;
    Ok((file, name))
}

/// Asks for `wanted`, or the most below it that the kernel knows. Said even where it is nothing: offloads belong to the
/// device, not to the descriptor, and outlast an earlier one.
fn set_offload(file: &File, wanted: Offload) -> io::Result<Offload> {
    let mut refusal = io::Error::from(io::ErrorKind::Unsupported);
    for offload in Offload::ALL {
        if offload > wanted {
            continue;
        }
        match set_offload_flags(file, offload.flags()) {
            Ok(()) => return Ok(offload),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

#[expect(unsafe_code, reason = "TUNSETIFF is an ioctl on a C structure")]
fn set_interface(file: &File, name: &str, flags: c_int) -> io::Result<String> {
    let refuse = || io::Error::from(io::ErrorKind::InvalidInput);
    // SAFETY: `ifreq` is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: the kernel wants the name terminated.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains(['\0', '/', '%']) {
        return Err(refuse());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // The flags fill 16 bits; IFF_TUN_EXCL is the highest of them.
    let flags = u16::try_from(flags).map_err(|_| refuse())?;
    request.ifr_ifru.ifru_flags = c_short::from_ne_bytes(flags.to_ne_bytes());

    // SAFETY: `request` is a whole `ifreq`, alive for the call, which the kernel reads and writes.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = request.ifr_name.map(libc::c_char::cast_unsigned);
    let name = CStr::from_bytes_until_nul(&bytes).map_err(io::Error::other)?;
    Ok(name.to_string_lossy().into_owned())
}

#[expect(unsafe_code, reason = "an ioctl that reads one int")]
fn set_int(file: &File, request: libc::Ioctl, value: c_int) -> io::Result<()> {
    // SAFETY: the callers' requests read one `int` through the pointer, which outlives the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const value) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[expect(unsafe_code, reason = "TUNSETOFFLOAD is an ioctl")]
fn set_offload_flags(file: &File, flags: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    let done = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(flags),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_would_cut_or_number_is_refused() {
        for name in ["", "sixteen-letters!", "a\0b", "tap%d", "a/b"] {
            let file = File::open("/dev/null").unwrap();

            let refused = set_interface(&file, name, 0).unwrap_err();

            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn each_offload_includes_the_lesser_ones() {
        for pair in Offload::ALL.windows(2) {
            assert!(pair[0] > pair[1]);
            assert_eq!(pair[0].flags() & pair[1].flags(), pair[1].flags());
        }
    }
}
