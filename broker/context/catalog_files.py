"""Tables of sources in the formats that catalogues come in, read piece by piece.

Parquet, a HATS folder (Parquet files by HEALPix pixel), FITS binary tables and CSV of any separator. Every
reader says which columns there are, with unit and description where the file has them, and gives them in
chunks: numbers as float64 or float32 with NaN for NULL, or as int64 with NULL_INTEGER; booleans as int8 with
-1; texts as an Arrow array. What is neither (lists, times) is not offered.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from broker.context.catalogs import NULL_INTEGER
from broker.errors import CatalogError
from broker.table import Kind

F64 = npt.NDArray[np.float64]

Chunk = Mapping[str, Any]
"""Columns by their name in the file."""

_ROWS = 500_000
"""Rows of a chunk."""
_INTERNAL = re.compile(r"__index_level_\d+__|_healpix_\d+|Norder|Dir|Npix")
"""Columns that pandas and HATS add for themselves."""


@dataclass(frozen=True)
class SourceColumn:
    """A column of a file."""

    name: str
    kind: Kind
    unit: str = ""
    doc: str = ""


class TableFile(Protocol):
    """A table that can be read.

    ra, dec : names of the columns of the position if the file itself says so, else ''
    """

    ra: str
    dec: str

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def columns(self) -> Sequence[SourceColumn]:
        """What there is to read."""

    @property
    def rows(self) -> int:
        """How many rows there are."""

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Some columns of all rows, in order, each chunk of at least one row.  Raises CatalogError."""


def open_table(path: Path) -> TableFile:
    """The reader for a file or folder, by its name.  Raises CatalogError."""
    name = path.name.lower().removesuffix(".gz")
    if path.is_dir():
        return _hats(path)
    if not path.is_file():
        raise CatalogError(f"{path} does not exist")
    try:
        if name.endswith((".parquet", ".parq", ".pq")):
            return ParquetTable(path, [path])
        if name.endswith((".fits", ".fit", ".fits.fz")):
            return FitsTable(path)
        if name.endswith((".csv", ".tsv", ".txt", ".dat", ".psv")):
            return CsvTable(path)
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise CatalogError(f"{path} cannot be read: {error}") from error
    raise CatalogError(
        f"{path} is of no known format; it takes .parquet, .fits, .csv or .tsv (also .gz), or a HATS folder"
    )


# --- Parquet and HATS ------------------------------------------------------------------------------------


class ParquetTable:
    """One table in one or many Parquet files."""

    def __init__(self, path: Path, files: Sequence[Path], ra: str = "", dec: str = "") -> None:
        self.path, self.ra, self.dec = path, ra, dec
        self._files = files
        schema = pq.read_schema(files[0])
        described = _votable_fields(schema.metadata or {})
        found = (_arrow_column(field, described) for field in schema)
        self.columns = [it for it in found if it is not None and not _INTERNAL.fullmatch(it.name)]
        self.rows = sum(pq.read_metadata(file).num_rows for file in files)

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """As TableFile says."""
        kinds = {column.name: column.kind for column in self.columns}
        for file in self._files:
            table = pq.ParquetFile(file)
            missing = set(names) - set(table.schema_arrow.names)
            if missing:
                raise CatalogError(f"{file} lacks the column {min(missing)!r} that other files have")
            for batch in table.iter_batches(_ROWS, columns=list(names)):
                if batch.num_rows:
                    yield {name: _from_arrow(batch.column(name), kinds[name], name) for name in names}


def _hats(folder: Path) -> TableFile:
    """A HATS catalogue, or the main one of a collection."""
    collection = folder / "collection.properties"
    if collection.is_file():
        folder /= _properties(collection).get("hats_primary_table_url", "")
    try:
        path = next(it for name in ("hats.properties", "properties") if (it := folder / name).is_file())
    except StopIteration:
        raise CatalogError(
            f"{folder} is no HATS catalogue: it has no hats.properties; name the files in it one by one"
        ) from None
    properties = _properties(path)
    kind = properties.get("dataproduct_type", "object")
    if kind not in ("object", "source", "map"):
        raise CatalogError(f"{folder} is the {kind} part of a HATS catalogue; add the catalogue itself")
    files = sorted((folder / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet"))
    files += sorted((folder / "dataset").glob("Norder=*/Dir=*/Npix=*/*.parquet"))
    if not files:
        raise CatalogError(f"{folder}/dataset has no Parquet files Norder=*/Dir=*/Npix=*.parquet")
    ra = properties.get("hats_col_ra") or properties.get("hats_col_j2000_ra", "")
    dec = properties.get("hats_col_dec") or properties.get("hats_col_j2000_dec", "")
    return ParquetTable(folder, files, ra, dec)


def _properties(path: Path) -> dict[str, str]:
    """key=value lines, as Java's properties."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and line[0] not in "#!")
    return {key.strip(): value.strip().replace("\\", "") for key, _, value in pairs}


def _votable_fields(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, str]]:
    """Unit and description of each column, from the VOTable that VOParquet puts into a file's metadata."""
    text = metadata.get(b"IVOA.VOTable-Parquet.content")
    if text is None:
        return {}
    try:
        root = ElementTree.fromstring(text.decode())
    except (ElementTree.ParseError, UnicodeDecodeError):
        return {}
    found = {}
    for field in root.iter():
        if field.tag.rpartition("}")[2] == "FIELD":
            texts = (it.text or "" for it in field if it.tag.rpartition("}")[2] == "DESCRIPTION")
            found[field.get("name", "")] = field.get("unit", ""), " ".join(next(texts, "").split())
    return found


def _arrow_column(field: pa.Field, described: Mapping[str, tuple[str, str]]) -> SourceColumn | None:
    kind = _arrow_kind(field.type)
    if kind is None:
        return None
    metadata = {key.decode().lower(): value.decode() for key, value in (field.metadata or {}).items()}
    unit, doc = described.get(field.name, ("", ""))
    doc = doc or metadata.get("description", "") or metadata.get("doc", "") or metadata.get("comment", "")
    return SourceColumn(field.name, kind, unit or metadata.get("unit", ""), doc)


def _arrow_kind(type_: pa.DataType) -> Kind | None:
    if pa.types.is_dictionary(type_):
        return _arrow_kind(type_.value_type)
    if pa.types.is_boolean(type_):
        return "bool"
    if pa.types.is_integer(type_):
        return "int"
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "float"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "string"
    return None


def _from_arrow(array: pa.Array, kind: Kind, name: str) -> Any:
    """A column in the form of a chunk."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    match kind:
        case "string":
            texts = pc.utf8_trim_whitespace(array.cast(pa.large_string()))
            return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
        case "bool":
            return array.cast(pa.int8()).fill_null(-1).to_numpy(zero_copy_only=False)
        case "int":
            try:
                return array.cast(pa.int64()).fill_null(NULL_INTEGER).to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid as error:
                raise CatalogError(
                    f"column {name!r} has integers beyond 63 bits; name the columns to keep by --columns"
                ) from error
        case "float":
            wanted = pa.float32() if array.type in (pa.float16(), pa.float32()) else pa.float64()
            return array.cast(wanted).to_numpy(zero_copy_only=False)


# --- FITS ------------------------------------------------------------------------------------------------


class FitsTable:
    """The first binary table of a FITS file, read where it lies."""

    ra = dec = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as table:
            self.rows = len(table.data)
            self._nulls = {column.name: column.null for column in table.columns}
            found = [_fits_column(table, number, it) for number, it in enumerate(table.columns, 1)]
        self.columns = [column for column in found if column is not None]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        from astropy.io import fits  # noqa: PLC0415 (slow to import)

        with fits.open(self.path, memmap=not self.path.name.endswith(".gz")) as file:
            tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU)]
            if not tables:
                raise CatalogError(f"{self.path} has no binary table")
            yield tables[0]

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """As TableFile says."""
        kinds = {column.name: column.kind for column in self.columns}
        with self._opened() as table:
            fields = {name: table.data.field(name) for name in names}
            for start in range(0, self.rows, _ROWS):
                yield {
                    name: self._values(values[start : start + _ROWS], kinds[name], self._nulls[name])
                    for name, values in fields.items()
                }

    @staticmethod
    def _values(values: Any, kind: Kind, null: Any) -> Any:
        match kind:
            case "string":
                return pa.array([str(it).strip() or None for it in values], pa.large_string())
            case "bool":
                return np.asarray(values).astype(np.int8)
            case "int":
                whole = np.asarray(values).astype(np.int64)
                return whole if null is None else np.where(whole == null, NULL_INTEGER, whole)
            case "float":
                size = values.dtype.itemsize
                return np.asarray(values).astype(np.float32 if size == 4 else np.float64)


def _fits_column(table: Any, number: int, column: Any) -> SourceColumn | None:
    values = table.data.field(column.name)
    kinds: dict[str, Kind] = {
        "f": "float", "i": "int", "u": "int", "b": "bool", "U": "string", "S": "string",
    }  # fmt: skip
    kind = kinds.get(values.dtype.kind)
    if kind is None or values.ndim != 1:
        return None
    header = table.header
    doc = header.get(f"TCOMM{number}", "") or header.comments[f"TTYPE{number}"]
    return SourceColumn(column.name, kind, column.unit or "", " ".join(str(doc).split()))


# --- CSV -------------------------------------------------------------------------------------------------

_SEPARATORS = "\t|;,"
_MISSING = ["", "nan", "null", "none", "n/a", "na", "--", "---", "..."]
"""Words for NULL, in any case."""


class CsvTable:
    """Lines of text under a line of names: CSV, VizieR's TSV, gzipped or not.

    What a column is follows from all of its values, so the file is read twice. Lines that begin with # before
    the names are comments; units and descriptions are taken from VizieR's, and its line of units.
    """

    ra = dec = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._read_head()
        kinds = self._kinds()
        self.columns = [
            SourceColumn(name, kinds[name], self._units.get(name, ""), self._docs.get(name, ""))
            for name in self._names
        ]

    def _read_head(self) -> None:
        opened = gzip.open if self.path.name.endswith(".gz") else open
        with opened(self.path, "rt", encoding="utf-8-sig") as file:
            lines = [line.rstrip("\r\n") for line, _ in zip(file, range(2_000), strict=False)]
        head = next((k for k, line in enumerate(lines) if line.strip() and line[0] != "#"), None)
        if head is None:
            raise CatalogError(f"{self.path} has no line of column names")
        self._separator = max(_SEPARATORS, key=lines[head].count)
        self._names = self._split(lines[head])
        if len(self._names) < 2 or re.search(r"(^|\W)\d+\.\d", lines[head]):
            raise CatalogError(
                f"{self.path}: line {head + 1} has no column names separated by comma, semicolon, tab or "
                "bar; put a line such as ra,dec,mag first"
            )
        if len(set(self._names)) < len(self._names):
            raise CatalogError(f"{self.path}: two columns have the same name; rename one")
        ruled = (
            len(lines) > head + 2
            and set(lines[head + 2]) <= {"-", " ", self._separator}
            and "-" in lines[head + 2]
        )
        self._first = head + (3 if ruled else 1)
        units = self._split(lines[head + 1]) if ruled else []
        self._units = {name: unit.strip('"') for name, unit in zip(self._names, units, strict=False)}
        described = (re.match(r"#Column\t(\S+)\t\([^)]*\)\t([^\t\[]*)", line) for line in lines[:head])
        self._docs = {it[1]: " ".join(it[2].split()) for it in described if it}

    def _split(self, line: str) -> list[str]:
        return [part.strip() for part in next(csv.reader([line], delimiter=self._separator))]

    def _texts(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns as texts, NULL where they say so."""
        read = pacsv.ReadOptions(skip_rows=self._first, column_names=self._names, block_size=1 << 24)
        parse = pacsv.ParseOptions(delimiter=self._separator)
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(self._names, pa.string()), include_columns=list(names),
            null_values=[], strings_can_be_null=False,
        )  # fmt: skip
        try:
            for batch in pacsv.open_csv(self.path, read, parse, convert):
                columns = [_with_nulls(pc.utf8_trim_whitespace(column)) for column in batch.columns]
                if batch.num_rows:
                    yield pa.RecordBatch.from_arrays(columns, names=list(names))
        except pa.ArrowInvalid as error:
            raise CatalogError(f"{self.path} cannot be read: {error}") from error

    def _kinds(self) -> dict[str, Kind]:
        """The narrowest kind that takes every value of a column."""
        left: dict[str, list[Kind]] = {name: ["bool", "int", "float"] for name in self._names}
        for batch in self._texts(self._names):
            self.rows += batch.num_rows
            for name, kinds in left.items():
                while kinds and _converted(batch.column(name), kinds[0]) is None:
                    kinds.pop(0)
        return {name: kinds[0] if kinds else "string" for name, kinds in left.items()}

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """As TableFile says."""
        kinds = {column.name: column.kind for column in self.columns}
        for batch in self._texts(names):
            yield {
                name: _from_arrow(_converted(batch.column(name), kinds[name]), kinds[name], name)
                for name in names
            }


def _with_nulls(column: pa.Array) -> pa.Array:
    missing = pc.is_in(pc.utf8_lower(column), pa.array(_MISSING))
    return pc.if_else(missing, pa.scalar(None, pa.string()), column)


def _converted(column: pa.Array, kind: Kind) -> pa.Array | None:
    """Texts as values of a kind, None if one of them is none."""
    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    if kind == "string":
        return column
    if kind == "float" and pc.any(pc.match_substring_regex(column, r"^[-+]?\d{16,}$")).as_py():
        return None  # ids that do not fit 64 bits: as texts they keep their digits
    if kind == "bool" and not pc.all(pc.match_substring_regex(column, "(?i)^(true|false)$")).as_py():
        return None  # Arrow takes 0 and 1 too; a column of nothing else holds numbers
    try:
        return pc.replace_substring_regex(column, r"^\+", "").cast(types[kind])
    except pa.ArrowInvalid:
        return None


# --- where the position is -------------------------------------------------------------------------------

_RIGHT_ASCENSIONS = (
    "ra", "ra_icrs", "raj2000", "ra_j2000", "radeg", "ra_deg", "target_ra", "s_ra", "mean_ra", "ramean",
    "ra_mean", "alpha_j2000", "right_ascension", "ra2000", "raicrs", "coord_ra", "rightascension",
)  # fmt: skip
_DECLINATIONS = (
    "dec", "de_icrs", "dej2000", "dec_j2000", "dedeg", "dec_deg", "target_dec", "s_dec", "mean_dec",
    "decmean", "dec_mean", "delta_j2000", "declination", "dec2000", "deicrs", "coord_dec", "declination",
)  # fmt: skip
_OTHER_SPELLINGS = {"de": "dec", "dec_icrs": "de_icrs", "decj2000": "dej2000", "decdeg": "dedeg"}


def plain(name: str) -> str:
    """A column's name as filters write it: letters, digits and underscores, a letter first."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "column"
    return (word if word[0].isalpha() else f"c_{word}")[:60]


@dataclass(frozen=True)
class Position:
    """The columns of the position, and what turns them into degrees.

    sexagesimal : they are texts of hours and degrees;  to_degrees : else what they are multiplied by
    """

    ra: SourceColumn
    dec: SourceColumn
    sexagesimal: bool
    to_degrees: tuple[float, float] = (1.0, 1.0)

    def degrees(self, chunk: Chunk) -> tuple[F64, F64]:
        """Right ascension and declination [deg] of a chunk, NaN where it has none.  Raises CatalogError."""
        if self.sexagesimal:
            return _sexagesimal(chunk[self.ra.name], 15.0), _sexagesimal(chunk[self.dec.name], 1.0)
        ra, dec = (_numbers(chunk[it.name], it.kind) for it in (self.ra, self.dec))
        return ra * self.to_degrees[0], dec * self.to_degrees[1]


def find_position(table: TableFile, ra: str = "", dec: str = "") -> Position:
    """Which columns of a table are the position.

    ra, dec : names given by the user, who must give both or none. Else those that the file names, else the
    usual names, numbers before texts.  Raises CatalogError.
    """
    if bool(ra) != bool(dec):
        raise CatalogError("--ra and --dec go together: give both, or none")
    named = (ra, dec) if ra else (table.ra, table.dec)
    if named[0] and named[1]:
        return _position(table, *(_named(table, name) for name in named))
    by_name: dict[str, list[SourceColumn]] = {}
    for column in table.columns:
        word = plain(column.name).lower()
        by_name.setdefault(_OTHER_SPELLINGS.get(word, word), []).append(column)
    numeric = ("float", "int")
    for wanted in (numeric, ("string",)):
        for names in zip(_RIGHT_ASCENSIONS, _DECLINATIONS, strict=True):
            pair = [next((it for it in by_name.get(name, ()) if it.kind in wanted), None) for name in names]
            if pair[0] is not None and pair[1] is not None:
                return _position(table, pair[0], pair[1])
    shown = ", ".join(column.name for column in table.columns[:30])
    raise CatalogError(
        f"{table.path}: which columns are right ascension and declination? Say it by --ra COLUMN "
        f"--dec COLUMN; it has {shown}"
    )


def _named(table: TableFile, name: str) -> SourceColumn:
    for column in table.columns:
        if column.name == name:
            return column
    shown = ", ".join(column.name for column in table.columns[:30])
    raise CatalogError(f"{table.path} has no column {name!r}; it has {shown}")


_TO_DEGREES = {
    "rad": 180.0 / np.pi,
    "radian": 180.0 / np.pi,
    "h": 15.0,
    "hr": 15.0,
    "hour": 15.0,
    "hourangle": 15.0,
}


def _position(table: TableFile, ra: SourceColumn, dec: SourceColumn) -> Position:
    texts = [column.kind == "string" for column in (ra, dec)]
    if any(texts) != all(texts) or "bool" in (ra.kind, dec.kind):
        raise CatalogError(f"{table.path}: {ra.name!r} and {dec.name!r} are no pair of coordinates")
    factors = [_TO_DEGREES.get(column.unit.strip().lower(), 1.0) for column in (ra, dec)]
    return Position(ra, dec, all(texts), (factors[0], factors[1]))


def _numbers(values: Any, kind: Kind) -> F64:
    found = np.asarray(values, dtype=np.float64)
    return np.where(values == NULL_INTEGER, np.nan, found) if kind == "int" else found


_SEXAGESIMAL = (
    r"^(?P<sign>[-+]?)(?P<whole>\d{1,3})[ :hd°]\s*(?P<minutes>\d{1,2}\.?\d*)[m'′]?"
    r"(?P<seconds>[ :m'′]\s*\d{1,2}\.?\d*)?[s\"″]?$"
)


def _sexagesimal(texts: pa.Array, factor: float) -> F64:
    """Texts such as 12:34:56.7 as degrees, NaN where they are none.  factor : degrees of a whole.

    Raises CatalogError if most are none: the column is something else.
    """
    parts = pc.extract_regex(texts, _SEXAGESIMAL)
    bad = pc.and_(pc.is_valid(texts), pc.is_null(parts))
    if 2 * pc.sum(bad).as_py() > len(texts):
        raise CatalogError(
            f"{texts.filter(bad)[0].as_py()!r} is no coordinate; write degrees as numbers, or hours and "
            "degrees as 12:34:56.7 and -01:02:03"
        )
    size = sum(_sixtieth(pc.struct_field(parts, name)) / by for name, by in _PARTS.items())
    negative = pc.equal(pc.struct_field(parts, "sign"), "-").fill_null(False).to_numpy(zero_copy_only=False)
    return np.asarray(np.where(negative, -1.0, 1.0) * size * factor)


_PARTS = {"whole": 1.0, "minutes": 60.0, "seconds": 3600.0}


def _sixtieth(texts: pa.Array) -> F64:
    """A part of a sexagesimal number, 0 where it is left out."""
    digits = pc.replace_substring_regex(texts, r"[^0-9.]", "")
    whole = pc.if_else(pc.equal(digits, ""), pa.scalar("0", digits.type), digits)
    return np.asarray(whole.cast(pa.float64()).to_numpy(zero_copy_only=False))


def renamed(columns: Sequence[SourceColumn], taken: Sequence[str]) -> dict[str, SourceColumn]:
    """Columns by the names that filters write, all different whatever their case.

    taken : names that are used already
    """
    found: dict[str, SourceColumn] = {}
    used = {name.lower() for name in taken}
    for column in columns:
        word = base = plain(column.name)
        number = 2
        while word.lower() in used:
            word, number = f"{base}_{number}", number + 1
        used.add(word.lower())
        found[word] = column
    return found
