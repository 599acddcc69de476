//! Typed access to a map by its descriptor.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use crate::error::{Error, Result};
use crate::sys::{MappedWords, Octets, RawMap, Ring};

/// Entries that are read or written by one system call.
const BATCH: usize = 1024;

/// A map's name, and the octets of its keys and values.
pub(super) type Shape = (&'static str, u32, u32);

const fn shape<K, V>(name: &'static str) -> Shape {
    #[allow(clippy::cast_possible_truncation, reason = "the largest value has 8 KiB")]
    (name, size_of::<K>() as u32, size_of::<V>() as u32)
}

/// A hash map or an array (whose key is its index) of the kernel.
#[derive(Debug)]
pub struct Map<K, V> {
    raw: RawMap,
    name: &'static str,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Octets, V: Octets> Map<K, V> {
    pub(super) const fn shape(name: &'static str) -> Shape {
        shape::<K, V>(name)
    }

    /// The map behind a descriptor.
    ///
    /// # Errors
    /// `Io` where it is no map, or its keys or values have another size.
    pub fn new(name: &'static str, fd: OwnedFd) -> Result<Self> {
        let raw = RawMap::new(fd).map_err(Error::io(format!("read the map {name}")))?;
        let sizes = (raw.info.key_size as usize, raw.info.value_size as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            let source = io::Error::other(format!("its keys and values have {sizes:?} octets"));
            return Err(Error::io(format!("use the map {name}"))(source));
        }
        Ok(Self {
            raw,
            name,
            types: PhantomData,
        })
    }

    /// How many entries it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.raw.info.max_entries
    }

    /// The value under a key.
    ///
    /// # Errors
    /// `Io`.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = vec![0; self.raw.value_size];
        let found = self
            .raw
            .get(&key.to_octets(), &mut value)
            .map_err(self.failed("read"))?;
        Ok(found.then(|| V::from_octets(&value)).flatten())
    }

    /// Enters or replaces a value.
    ///
    /// # Errors
    /// `Io`: among others, that the map is full.
    pub fn set(&self, key: &K, value: &V) -> Result<()> {
        self.raw
            .update(&key.to_octets(), &value.to_octets())
            .map_err(self.failed("write"))
    }

    /// Deletes an entry of a hash map; what is not there is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn delete(&self, key: &K) -> Result<()> {
        self.raw
            .delete(&key.to_octets())
            .map(drop)
            .map_err(self.failed("delete from"))
    }

    /// Enters or replaces many values, in their order.
    ///
    /// # Errors
    /// `Io`; what was written before stays.
    pub fn set_all<'e>(&self, entries: impl IntoIterator<Item = (&'e K, &'e V)>) -> Result<()>
    where
        K: 'e,
        V: 'e,
    {
        let mut batch = (Vec::new(), Vec::new(), 0);
        for (key, value) in entries {
            key.append_to(&mut batch.0);
            value.append_to(&mut batch.1);
            batch.2 += 1;
            if batch.2 as usize == BATCH {
                self.flush(&mut batch)?;
            }
        }
        self.flush(&mut batch)
    }

    fn flush(&self, (keys, values, count): &mut (Vec<u8>, Vec<u8>, u32)) -> Result<()> {
        if *count == 0 {
            return Ok(());
        }
        let written = self.raw.update_batch(keys, values, *count);
        keys.clear();
        values.clear();
        *count = 0;
        written.map_err(|(_, error)| self.failed("write")(error))
    }

    /// Hands every entry to `each`. Entries that change meanwhile may be seen or not.
    ///
    /// # Errors
    /// `Io`.
    pub fn for_each(&self, mut each: impl FnMut(K, V)) -> Result<()> {
        let (key_size, value_size) = (size_of::<K>(), self.raw.value_size);
        let mut room = BATCH;
        let (mut cursor, mut more) = (Vec::new(), true);
        while more {
            let (mut keys, mut values) = (vec![0; room * key_size], vec![0; room * value_size]);
            let count = u32::try_from(room).unwrap_or(u32::MAX);
            let read = self.raw.lookup_batch(&mut cursor, &mut keys, &mut values, count);
            let read = match read {
                // A bucket of the hash map has more entries than fit.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    room *= 2;
                    continue;
                }
                read => read.map_err(self.failed("read"))?,
            };
            more = read.1;
            let entries = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size));
            for (key, value) in entries.take(read.0 as usize) {
                if let (Some(key), Some(value)) = (K::from_octets(key), V::from_octets(value)) {
                    each(key, value);
                }
            }
        }
        Ok(())
    }

    /// How many entries a hash map holds. An array always holds all.
    ///
    /// # Errors
    /// `Io`.
    pub fn count(&self) -> Result<u32> {
        let (mut count, mut key, mut next) = (0, None, vec![0; size_of::<K>()]);
        while self
            .raw
            .next_key(key.as_deref(), &mut next)
            .map_err(self.failed("read"))?
        {
            count += 1;
            key = Some(next.clone());
            if count >= self.capacity() {
                break;
            }
        }
        Ok(count)
    }

    /// The values of an array map as words that packets change at the same time.
    ///
    /// # Errors
    /// `Io`: among others, that the map was not made to be mapped.
    pub fn words(&self) -> Result<Words> {
        let stride = size_of::<V>().next_multiple_of(8);
        let mapped = MappedWords::new(self.raw.as_fd(), stride * self.capacity() as usize);
        Ok(Words {
            mapped: mapped.map_err(self.failed("map"))?,
            stride: stride / 8,
        })
    }

    fn failed(&self, verb: &str) -> impl FnOnce(io::Error) -> Error + use<K, V> {
        Error::io(format!("{verb} the map {}", self.name))
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

/// An array map's values in shared memory.
#[derive(Debug)]
pub struct Words {
    mapped: MappedWords,
    /// Words of a value.
    stride: usize,
}

impl Words {
    /// The word that lies `offset` octets into the value at `index`, a multiple of 8 as `offset_of!` says it; `None`
    /// beyond the map or the value.
    #[must_use]
    pub fn word(&self, index: u32, offset: usize) -> Option<&AtomicU64> {
        let (index, offset) = (index as usize, offset / 8);
        if offset >= self.stride {
            return None;
        }
        self.mapped.words().get(index * self.stride + offset)
    }
}

/// An array that has a value for each CPU.
#[derive(Debug)]
pub struct PerCpu<V> {
    map: Map<u32, V>,
}

impl<V: Octets> PerCpu<V> {
    pub(super) const fn shape(name: &'static str) -> Shape {
        shape::<u32, V>(name)
    }

    /// The map behind a descriptor.
    ///
    /// # Errors
    /// `Io` where it is no map, or its values have another size.
    pub fn new(name: &'static str, fd: OwnedFd) -> Result<Self> {
        Map::new(name, fd).map(|map| Self { map })
    }

    /// The value of each CPU.
    ///
    /// # Errors
    /// `Io`.
    pub fn get(&self, index: u32) -> Result<Vec<V>> {
        let raw = &self.map.raw;
        let mut values = vec![0; raw.value_size];
        raw.get(&index.to_octets(), &mut values)
            .map_err(self.map.failed("read"))?;
        let of_cpus = values.chunks_exact(size_of::<V>().next_multiple_of(8));
        Ok(of_cpus.filter_map(V::from_octets).collect())
    }

    /// Writes the same value on each CPU.
    ///
    /// # Errors
    /// `Io`.
    pub fn set(&self, index: u32, value: &V) -> Result<()> {
        let raw = &self.map.raw;
        let mut octets = value.to_octets();
        octets.resize(octets.len().next_multiple_of(8), 0);
        let all = octets.repeat(raw.value_size / octets.len());
        raw.update(&index.to_octets(), &all)
            .map_err(self.map.failed("write"))
    }
}

/// A ring of records that programs write and one reader takes out.
#[derive(Debug)]
pub struct Records<V> {
    raw: RawMap,
    types: PhantomData<fn() -> V>,
}

impl<V: Octets> Records<V> {
    pub(super) const fn shape(name: &'static str) -> Shape {
        shape::<(), ()>(name)
    }

    /// The ring buffer behind a descriptor.
    ///
    /// # Errors
    /// `Io` where it is no map.
    pub fn new(name: &'static str, fd: OwnedFd) -> Result<Self> {
        let raw = RawMap::new(fd).map_err(Error::io(format!("read the map {name}")))?;
        Ok(Self {
            raw,
            types: PhantomData,
        })
    }

    /// Begins to read. There may be one reader at a time, on the whole host.
    ///
    /// # Errors
    /// `Io`.
    pub fn reader(&self) -> Result<Reader<V>> {
        let ring = Ring::new(&self.raw).map_err(Error::io("map the ring of samples"))?;
        Ok(Reader {
            ring,
            types: PhantomData,
        })
    }
}

impl<V> AsFd for Records<V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

/// A map of buffers, one a CPU, that are somebody else's to open.
#[derive(Debug)]
pub struct Outlet {
    raw: RawMap,
}

impl Outlet {
    pub(super) const fn shape(name: &'static str) -> Shape {
        shape::<u32, u32>(name)
    }

    /// The map behind a descriptor.
    ///
    /// # Errors
    /// `Io` where it is no map.
    pub fn new(name: &'static str, fd: OwnedFd) -> Result<Self> {
        let raw = RawMap::new(fd).map_err(Error::io(format!("read the map {name}")))?;
        Ok(Self { raw })
    }

    /// Another descriptor of it.
    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.raw.as_fd().try_clone_to_owned()
    }
}

/// Takes records out of a ring.
pub struct Reader<V> {
    ring: Ring,
    types: PhantomData<fn() -> V>,
}

impl<V: Octets> Iterator for Reader<V> {
    type Item = V;

    /// The next record; `None` while there is none.
    fn next(&mut self) -> Option<V> {
        self.ring.next(V::from_octets)?
    }
}
