"""Feature sets: rows come back as written, whatever the storage; odd files are refused clearly."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab.data import DataError, FeatureSet, open_dataset
from vidhash_lab.data.features import prefetch

STATUS = Path("/proc/self/status")
STORAGE = {
    "contiguous": {},
    "chunked": {"chunks": (3, 10, 12)},
    "compressed": {"chunks": (5, 10, 12), "compression": "gzip"},
}


def read(path):
    with h5py.File(path) as file:
        return torch.from_numpy(file["feats"][:]).float()


def edit(path, **datasets):
    with h5py.File(path, "a") as file:
        for key, data in datasets.items():
            file.pop(key, None)
            if data is not None:
                file[key] = data
    return path


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("storage", STORAGE)
def test_rows_are_those_of_the_file(random_features, storage, dtype, in_memory):
    path = random_features(dtype=dtype, **STORAGE[storage])
    features, truth = FeatureSet(path, in_memory=in_memory), read(path)
    wanted = np.random.default_rng(0).integers(0, 64, 40)  # unsorted, with repeats
    rows = features.rows(wanted)
    assert rows.dtype == torch.float32 and rows.shape == (40, 10, 12)
    assert torch.equal(rows, truth[wanted])
    assert torch.equal(features.rows(torch.tensor([63, 0])), truth[[63, 0]])
    assert torch.equal(features.rows(5), truth[5:6])
    assert len(features.rows([])) == 0
    assert torch.equal(torch.cat([frames for _, frames in features.batches(7)]), truth)


@pytest.mark.parametrize("storage", STORAGE)
def test_several_files_are_one_set(random_features, storage):
    paths = [
        random_features(f"{n}.h5", (n, 10, 12), seed=n, **STORAGE[storage]) for n in (5, 17, 8)
    ]
    features, truth = FeatureSet(paths), torch.cat([read(path) for path in paths])
    wanted = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert len(features) == 30 and features.labels.shape == (30, 5)
    assert torch.equal(features.rows(wanted), truth[wanted])
    assert features.features.where(6).endswith("17.h5, row 1")


def mapped_bytes():
    """Resident bytes of this process that belong to mapped files."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return 1024 * int(lines["RssFile"].split()[0])


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
def test_what_was_read_does_not_stay_in_memory(tmp_path):
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file["feats"] = np.ones((400, 25, 4096), "f4")  # 164 MB
    features = FeatureSet(tmp_path / "large.h5")
    before = mapped_bytes()
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert (
        sum(features.rows(indices).sum().item() for indices in order.split(50)) == 400 * 25 * 4096
    )
    assert mapped_bytes() - before < 40e6


@pytest.mark.parametrize("wrong", [[64], [-1], [3, 99]])
def test_a_row_that_is_not_there(random_features, wrong):
    for in_memory in (False, True):
        with pytest.raises(IndexError, match="rows are 0 to 63"):
            FeatureSet(random_features(), in_memory=in_memory).rows(wrong)


def test_rows_are_integers(random_features):
    with pytest.raises(TypeError, match="integers"):
        FeatureSet(random_features()).rows([0.5])


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(feats=None), r"no data set `feats`; found \['labels'\]"),
        (dict(feats=np.zeros((4, 3))), r"shape \(4, 3\); expected \(N, T, D\)"),
        (dict(feats=np.zeros((64, 2, 3))), "float64; features are float16 or float32"),
        (dict(feats=np.zeros((0, 2, 3), "f4")), "nothing in it"),
        (dict(labels=np.zeros((63, 5), bool)), "`labels` has 63 rows, `feats` has 64"),
        (dict(labels=np.zeros(64, bool)), r"are \(64,\); expected one multi-hot row .*\(64, C\)"),
        (dict(video_ids=np.arange(64)), "`video_ids` is of int64; expected text"),
        (dict(thumbnails=np.zeros((3, 10, 2, 2), "u1")), "`thumbnails` has 3 rows"),
    ],
)
def test_an_odd_file_is_named_with_what_is_wrong(random_features, change, says):
    path = edit(random_features(), **change)
    with pytest.raises(DataError, match=says) as error:
        FeatureSet(path).video_ids  # noqa: B018
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_file_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5"):
        FeatureSet(tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(DataError, match=r"text\.h5: not an HDF5 file"):
        FeatureSet(tmp_path / "text.h5")


def test_a_file_cut_short(random_features):
    path = random_features()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="cut short"):
        FeatureSet(path)


def test_rows_that_nobody_wrote(tmp_path):
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.create_dataset("feats", (1 << 40, 25, 4096), "f4", chunks=True)
    with pytest.raises(DataError, match=r"empty\.h5: `feats` has shape .* rows that were never"):
        FeatureSet(tmp_path / "empty.h5")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_block_that_cannot_be_read(random_features, dtype):
    path = random_features(dtype=dtype, **STORAGE["compressed"])
    with h5py.File(path) as file:
        block = file["feats"].id.get_chunk_info(3)
    data = bytearray(path.read_bytes())
    data[block.byte_offset : block.byte_offset + 20] = bytes(20)
    path.write_bytes(data)
    features = FeatureSet(path)
    with pytest.raises(DataError, match=r"features\.h5: `feats`, row \d+ and after it, damaged"):
        features.rows(range(64))


def test_a_block_too_short_for_its_checksum(random_features):
    path = random_features(chunks=(5, 10, 12), compression="gzip", fletcher32=True)
    assert torch.equal(FeatureSet(path).rows(range(64)), read(path))
    with h5py.File(path) as file:
        sizes = [file["feats"].id.get_chunk_info(i).size for i in range(13)]
    data = bytearray(path.read_bytes())
    # A block's entry in the index is its size, a mask of filters, and its place in four numbers.
    entries = [(s.to_bytes(4, "little") + bytes(4), s) for s in sizes]
    entry = next(e for e, s in entries if sizes.count(s) == 1 and data.count(e) == 1)
    place = data.index(entry)
    data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"features\.h5: `feats` has an empty block"):
        FeatureSet(path)


def test_files_of_one_set_must_agree(random_features):
    one = random_features("one.h5")
    with pytest.raises(DataError, match=r"two\.h5: `feats` has rows \(10, 13\)"):
        FeatureSet([one, random_features("two.h5", (64, 10, 13))])
    with pytest.raises(DataError, match=r"three\.h5: `labels` has rows \(6,\)"):
        FeatureSet([one, random_features("three.h5", labels=6)])
    with pytest.raises(DataError, match=r"four\.h5: has no `labels`"):
        FeatureSet([one, random_features("four.h5", labels=None)])


def test_labels_that_lie_elsewhere(random_features):
    labels = np.ones((64, 3), int)
    assert FeatureSet(random_features(), labels=labels).labels.dtype == bool
    with pytest.raises(DataError, match="one multi-hot row for each of the 64"):
        FeatureSet(random_features(), labels=labels[:5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(random_features, value):
    path = random_features()
    with h5py.File(path, "a") as file:
        file["feats"][[7, 31], 2, 3] = value
    features = FeatureSet(path)
    features.rows([0, 1])
    with pytest.raises(DataError, match=r"1 of the videos.*row 31"):
        features.rows([0, 31])
    with pytest.raises(DataError, match=r"2 of the videos.*row 7.*row 31"):
        features.validate()


def test_videos_that_are_all_zero_are_counted(random_features):
    path = random_features()
    with h5py.File(path, "a") as file:
        file["feats"][3] = file["feats"][9] = 0
    with pytest.warns(UserWarning, match="2 of 64 videos are all zero.*row 3"):
        FeatureSet(path).validate()


def test_ones_own_file_is_train_database_and_query(random_features):
    dataset = open_dataset(random_features("mine.h5"))
    assert dataset.name == "mine" and dataset.self_query
    assert (len(dataset.train), dataset.num_frames, dataset.feature_dim) == (64, 10, 12)


def test_a_folder_of_three_files(random_features, tmp_path):
    for part, count in (("train", 9), ("database", 7), ("query", 3)):
        random_features(f"{part}.h5", (count, 10, 12))
    dataset = open_dataset(tmp_path)
    assert [len(s) for s in (dataset.train, dataset.database, dataset.query)] == [9, 7, 3]
    assert not dataset.self_query
    random_features("query.h5", (3, 10, 13))
    with pytest.raises(DataError, match=r"query\.h5: videos are \(T, D\) = \(10, 13\)"):
        open_dataset(tmp_path)
    random_features("query.h5", (3, 10, 12), labels=4)
    with pytest.raises(DataError, match="same column in both"):
        open_dataset(tmp_path)
    (tmp_path / "query.h5").unlink()
    with pytest.raises(DataError, match=r"query\.h5 missing"):
        open_dataset(tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'digitstories' is no data set.*digit-stories"):
        open_dataset("digitstories", tmp_path)


def test_the_built_in_data_set_by_name():
    dataset = open_dataset("digit-stories-mini")
    assert dataset.name == "digit-stories-mini" and not dataset.self_query
    assert [len(s) for s in (dataset.train, dataset.database, dataset.query)] == [600, 300, 60]
    assert (dataset.num_frames, dataset.feature_dim) == (25, 128)
    assert dataset.query.labels.shape == (60, 20) and dataset.query.fine_labels.shape == (60, 40)
    assert dataset.query.thumbnails[3].shape == (25, 32, 32)
    dataset.validate()


def test_pictures_are_thumbnails_or_else_the_features(random_features):
    path = random_features()
    features = FeatureSet(path)
    drawn = features.pictures([3, 5])
    assert drawn.shape == (2, 10, 16, 16) and drawn.dtype == np.uint8 and drawn.std() > 10
    thumbnails = np.random.default_rng(0).integers(0, 255, (64, 10, 4, 6, 3), dtype=np.uint8)
    features = FeatureSet(edit(path, thumbnails=thumbnails))
    assert np.array_equal(features.pictures([3, 5]), thumbnails[[3, 5]])
    assert np.array_equal(features.pictures(7), thumbnails[7:8])


def test_names_of_videos(random_features):
    path = random_features()
    assert FeatureSet(path).video_ids is None
    names = [f"größe/{n}.mp4" for n in range(64)]
    assert FeatureSet(edit(path, video_ids=names)).video_ids.tolist() == names
    with pytest.raises(DataError, match="`video_ids` has 63 rows"):
        FeatureSet(edit(path, video_ids=names[1:])).video_ids  # noqa: B018
    edit(path, video_ids=[name.encode("latin-1") for name in names])
    with pytest.raises(DataError, match=r"features\.h5, row 0: `video_ids` is .*no UTF-8"):
        FeatureSet(path).video_ids  # noqa: B018


def test_prefetch_keeps_order_and_passes_errors_on():
    def count():
        yield from range(10)
        raise OSError("disk gone")

    seen = []
    with pytest.raises(OSError, match="disk gone"):
        for item in prefetch(count()):
            seen.append(item)
    assert seen == list(range(10))


def test_prefetch_can_be_left_early():
    drawn = []
    for item in prefetch(drawn.append(n) or n for n in range(1000)):
        if item == 3:
            break
    assert len(drawn) < 10


def test_labels_that_are_no_numbers_are_refused(tmp_path):
    with h5py.File(tmp_path / "named.h5", "w") as file:
        file["feats"] = np.zeros((2, 3, 4), np.float32)
        file["labels"] = [[b"cat"], [b"dog"]]
    with pytest.raises(DataError, match=r"named\.h5: `labels` is of .*; expected numbers"):
        FeatureSet(tmp_path / "named.h5")


@pytest.mark.parametrize("sampled", [8 << 20, 8000])
def test_a_fingerprint_is_of_the_contents(random_features, tmp_path, monkeypatch, sampled):
    monkeypatch.setattr("vidhash_lab.data.features.SAMPLED_BYTES", sampled)
    path = random_features()
    ours = FeatureSet(path).fingerprint()
    assert len(ours) == 16 and int(ours, 16)
    moved = random_features("moved.h5", chunks=(5, 3, 12), compression="gzip")
    parts = [random_features(f"{n}.h5", (32, 10, 12)) for n in range(2)]
    for n, part in enumerate(parts):
        edit(part, feats=read(path)[32 * n : 32 * (n + 1)].numpy(), labels=None)
    assert ours == FeatureSet(moved).fingerprint() == FeatureSet(parts).fingerprint()
    assert ours == FeatureSet(path, in_memory=True).fingerprint()
    others = [random_features("other.h5", seed=1), random_features("half.h5", dtype="float16")]
    others.append(random_features("fewer.h5", (63, 10, 12)))
    views = edit(tmp_path / "v.h5", views=read(path)[:, None].numpy())
    others = [FeatureSet(other).fingerprint() for other in others]
    others.append(FeatureSet(path, views=views).fingerprint())
    assert len({ours, *others}) == 5


def test_a_fingerprint_of_a_data_set_sees_its_labels(random_features):
    path = random_features()
    ours, features = open_dataset(path).fingerprint(), FeatureSet(path).fingerprint()
    edit(path, labels=np.eye(64, dtype=bool))
    assert open_dataset(path).fingerprint() != ours and len(ours) == 16
    assert FeatureSet(path).fingerprint() == features


@pytest.mark.parametrize("value", [-1, 2, 0.3, np.nan])
def test_labels_are_0_or_1(random_features, value):
    path = random_features()
    labels = np.zeros((64, 5))
    labels[[3, 8], 2] = value
    edit(path, labels=labels)
    says = rf"row 3, column 2: `labels` is {value}.*2 values.*labels > 0.*classes=C"
    with pytest.raises(DataError, match=rf"features\.h5, {says}"):
        FeatureSet(path)
    with pytest.raises(DataError, match=says):
        FeatureSet(random_features(), labels=labels)
    edit(path, labels=labels != 0, fine_labels=labels)
    with pytest.raises(DataError, match=says.replace("`labels`", "`fine_labels`")):
        FeatureSet(path)


@pytest.mark.parametrize("shape", [(64,), (64, 1)])
def test_class_numbers_are_read_where_that_is_said(random_features, tmp_path, shape):
    numbers = np.arange(64) % 4
    for part in ("train", "database", "query"):
        edit(random_features(f"{part}.h5"), labels=numbers.reshape(shape))
    with pytest.raises(DataError):
        open_dataset(tmp_path)
    read = open_dataset(tmp_path, classes=5).query.labels
    assert read.dtype == bool and np.array_equal(read, np.eye(5)[numbers])
    given = FeatureSet(tmp_path / "train.h5", labels=numbers.reshape(shape), classes=5)
    assert np.array_equal(given.labels, read)
    with pytest.raises(
        DataError, match=r"train\.h5, row 3: `labels` is 3; class numbers are 0 to 2"
    ):
        open_dataset(tmp_path, classes=3)
    with pytest.raises(DataError, match="expected one class number each"):
        FeatureSet(random_features(), classes=5)


ELSEWHERE = ["external link", "link", "link to an external link", "external storage", "virtual"]
ELSEWHERE += ["virtual, large"]


def elsewhere(file, key, kind):
    """Put what stands as `key` elsewhere, and something that leads there in its place."""
    with h5py.File(file.filename + ".other", "w") as other:
        other["padding"] = np.zeros(100)
        file.copy(key, other)
        source = h5py.VirtualSource(other[key])
    whole = file.pop(key)
    if kind == "external link":
        file[key] = h5py.ExternalLink(file.filename + ".other", key)
    elif kind == "link":
        file[key] = h5py.SoftLink("/away")
    elif kind == "link to an external link":
        file["outer"] = h5py.ExternalLink(file.filename + ".other", "/")
        file[key] = h5py.SoftLink(f"/outer/{key}")
    elif kind == "external storage":
        file.create_dataset(key, whole.shape, whole.dtype, external="/etc/passwd")
    else:
        shape = (10**9, *whole.shape[1:]) if kind == "virtual, large" else whole.shape
        layout = h5py.VirtualLayout(shape, whole.dtype)
        layout[: len(whole)] = source
        file.create_virtual_dataset(key, layout)


@pytest.mark.parametrize("key", ["feats", "labels", "thumbnails", "video_ids", "views"])
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_data_that_lie_elsewhere_are_refused(random_features, key, kind):
    path = random_features()
    edit(path, thumbnails=np.ones((64, 10, 2, 2), "u1"), video_ids=np.full(64, "name", "S4"))
    edit(path, views=np.ones((64, 2, 10, 12), "f4"))
    assert FeatureSet(path).video_ids[5] == "name"
    with h5py.File(path, "a") as file:
        elsewhere(file, key, kind)
    with pytest.raises(DataError, match=rf"features\.h5: `{key}` is a link.* Copy its values"):
        FeatureSet(path).video_ids  # noqa: B018


@pytest.mark.parametrize("number", [-1, 2.5])
def test_an_odd_number_of_views_is_refused_before_any_work(tmp_path, number):
    with pytest.raises(ValueError, match=f"num_views={number}"):
        open_dataset("digit-stories-mini", tmp_path, num_views=number)
    assert not list(tmp_path.iterdir())
