"""The published data formats: byte for byte as the official scripts write them; read back, damaged, from the hub."""

import filecmp
import hashlib
import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from rrm.puzzles import sources
from rrm.puzzles.build import build_processed, write_split_csv
from rrm.puzzles.dataset import load_task, make_puzzles
from rrm.puzzles.formats import ARRAYS, DataError, read_processed
from rrm.puzzles.order import published_rows, stateless_rows
from rrm.puzzles.puzzle import Split
from rrm.puzzles.sources import splits_in
from rrm.puzzles.tasks import GenerateMaze, GenerateSudoku, MazeTask, PublishedOrder, SudokuTask, task_of

PUBLISHED = {"subsample_size": 20, "num_aug": 3, "aug": True, "seed": 0}


def build(source: Path, output: Path, **options) -> None:
    for _ in build_processed(task_of(splits_in(str(source))), output, **(PUBLISHED | options)):
        pass


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["sudoku", "maze"])
def test_the_official_sample_byte_for_byte(shared_data, tmp_path, kind):
    official = shared_data / "official_format" / kind
    build(shared_data / "official_format" / f"{kind}_csv", tmp_path)
    names = files_in(official)
    assert len(names) == 13
    assert files_in(tmp_path) == names
    assert filecmp.cmpfiles(official, tmp_path, names, shallow=False)[0] == names


@pytest.mark.parametrize("kind", ["sudoku", "maze"])
def test_the_official_sample_read_back(shared_data, kind):
    folder = shared_data / "official_format"
    task = task_of(splits_in(str(folder / kind)))
    assert (task.name, task.seq_len, task.vocab_size) == (kind, *((81, 11) if kind == "sudoku" else (900, 6)))
    processed, text = task.read(str(folder / kind / "train")), task.read(str(folder / f"{kind}_csv" / "train.csv"))
    assert len(processed.groups) == 21
    originals = processed.take(processed.groups[:-1])
    assert np.array_equal(originals.questions, text.questions)
    assert np.array_equal(originals.answers, text.answers)
    raw = np.load(folder / kind / "train" / "all__labels.npy")
    assert np.array_equal(processed.answers.reshape(len(raw), -1) + 1, raw)


@pytest.mark.parametrize("kind", ["sudoku", "maze"])
def test_the_published_order_of_the_official_sample(shared_data, kind):
    reference = json.loads((shared_data / "official_format" / "iterator_reference.json").read_text())[f"{kind}/train"]
    groups = (
        task_of({"train": str(shared_data / "official_format" / kind / "train")})
        .read(str(shared_data / "official_format" / kind / "train"))
        .groups
    )
    batches = [batch["rows"] for iteration in reference["iterations"] for batch in iteration]
    size, epochs = reference["global_batch_size"], reference["epochs_per_iter"]
    assert len(batches) >= 10
    for step, rows in enumerate(batches):
        assert published_rows(groups, reference["seed"], step, size, epochs).tolist() == rows
    assert published_rows(groups, 1, 0, size, epochs).tolist() != batches[0]


def test_the_published_order_trains_the_official_rows(shared_data):
    folder = shared_data / "official_format"
    reference = json.loads((folder / "iterator_reference.json").read_text())["sudoku/train"]
    task = SudokuTask(
        box=3,
        data=str(folder / "sudoku"),
        augment=False,
        published_order=PublishedOrder(epochs_per_iter=reference["epochs_per_iter"]),
    )
    data = load_task(task, 4)
    inputs = np.load(folder / "sudoku" / "train" / "all__inputs.npy")
    for step, batch in enumerate(reference["iterations"][0]):
        tokens = data.train_batch(reference["seed"], step, reference["global_batch_size"]).inputs.numpy()
        assert np.array_equal(tokens, inputs[batch["rows"]])
        part = data.train_batch(reference["seed"], step, reference["global_batch_size"], rows=range(2, 5))
        assert np.array_equal(part.inputs.numpy(), tokens[2:5])


def test_our_order_visits_every_group_once_an_epoch_and_every_member_in_time():
    groups = np.array([0, 3, 4, 8])
    seen = [stateless_rows(groups, 0, step, 3, range(3)) for step in range(60)]
    for rows in seen:
        assert sorted(np.searchsorted(groups, rows, side="right").tolist()) == [1, 2, 3]
    assert set(np.concatenate(seen)) == set(range(8))


def test_a_pass_shorter_than_a_batch_is_refused():
    task = SudokuTask(
        box=2, generate=GenerateSudoku(puzzles=3, blanks=4), published_order=PublishedOrder(epochs_per_iter=2)
    )
    assert len(load_task(task, 1, batch_size=6).train_batch(0, 1, 6).inputs) == 6
    with pytest.raises(DataError, match="2 epochs of 3 groups fill no batch of 7; give 3 or more"):
        load_task(task, 1, batch_size=7)


@pytest.fixture
def small(tmp_path) -> Path:
    """A processed 4x4 Sudoku data set made from generated CSV-like puzzles."""
    task = SudokuTask(box=2, generate=GenerateSudoku(puzzles=6, blanks=6))
    for split in ("train", "test"):
        write_split_csv(task, make_puzzles(task, split, 6), tmp_path / "csv" / f"{split}.csv", "made here")
    build(tmp_path / "csv", tmp_path / "npy", subsample_size=4, num_aug=2)
    return tmp_path / "npy"


def test_a_small_data_set_of_our_own(small):
    task = task_of(splits_in(str(small)))
    assert isinstance(task, SudokuTask)
    assert task.box == 2
    train = task.read(str(small / "train"))
    assert train.groups.tolist() == [0, 3, 6, 9, 12]
    assert np.load(small / "train" / "all__inputs.npy").dtype == np.int64
    assert np.load(small / "test" / "all__inputs.npy").dtype == np.uint8
    assert len(task.read(str(small / "test"))) == 6
    csv = SudokuTask(box=2, data=str(small.parent / "csv"))
    assert csv.identity() != task.identity()
    assert csv.identity() == SudokuTask(box=2, **csv.files).identity()


def rewrite(name: str, change):
    """Damage that loads an array, changes it and writes it back."""

    def damage(split: Path) -> None:
        path = split / f"all__{name}.npy"
        np.save(path, change(np.load(path)))

    return damage


def set_first(array: np.ndarray, value: int) -> np.ndarray:
    array.flat[0] = value
    return array


def edit_metadata(**changes):
    def damage(split: Path) -> None:
        path = split / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def truncate(split: Path) -> None:
    path = split / "all__labels.npy"
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, r"all__labels\.npy: not a whole npy array"),
        (
            lambda split: (split / "all__inputs.npy").write_bytes(b"no array"),
            r"all__inputs\.npy: not a whole npy array",
        ),
        (lambda split: (split / "all__labels.npy").unlink(), r"all__labels\.npy: No such file"),
        (lambda split: (split / "dataset.json").write_text("{"), r"dataset\.json: not JSON"),
        (lambda split: (split / "dataset.json").write_text("[]"), r"dataset\.json: vocab_size is None"),
        (edit_metadata(seq_len="16"), r"dataset\.json: seq_len is '16', not a whole number"),
        (edit_metadata(vocab_size=11), r"dataset\.json: vocab_size is 11, not the 6 of this task"),
        (rewrite("inputs", lambda a: a[:, :15]), r"all__inputs\.npy: shape \(12, 15\), not \(12, 16\)"),
        (rewrite("inputs", lambda a: a.astype(float)), r"all__inputs\.npy: float64, not whole numbers"),
        (rewrite("labels", lambda a: set_first(a, 0)), r"all__labels\.npy: row 0: token 0 at cell 0; cells are 1 to 5"),
        (rewrite("labels", lambda a: set_first(a, 6)), r"all__labels\.npy: row 0: token 6 at cell 0"),
        (rewrite("puzzle_indices", lambda a: a[:-1]), r"puzzle_indices\.npy: not one example a puzzle for 12 examples"),
        (rewrite("group_indices", lambda a: a[:-1]), r"group_indices\.npy: not rising from 0 to the 12 puzzles"),
        (rewrite("puzzle_identifiers", lambda a: set_first(a, 1)), r"puzzle_identifiers\.npy: not 12 zeros"),
        (
            rewrite("labels", lambda a: np.roll(a, 1, axis=1)),
            r"train: row 0: the answer is not a solved Sudoku.* rows in all",
        ),
    ],
)
def test_damaged_arrays_are_named(small, damage, says):
    damage(small / "train")
    with pytest.raises(DataError, match=says):
        SudokuTask(box=2, train="-", test="-").read(str(small / "train"))


def test_metadata_without_total_puzzles_is_hrms(small):
    path = small / "train" / "dataset.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "total_puzzles"}))
    assert len(read_processed(str(small / "train"), 4, 6)) == 12


def test_a_maze_csv_keeps_its_spaces(tmp_path):
    task = MazeTask(name="maze", side=6, generate=GenerateMaze(puzzles=3, min_path=6))
    made = make_puzzles(task, "train", 20)
    write_split_csv(task, made, tmp_path / "train.csv", "made here")
    lines = (tmp_path / "train.csv").read_bytes().split(b"\r\n")
    assert lines[0] == b"source,question,answer,rating"
    assert lines[1].endswith(b",%d" % ((made.answers[0] == 4).sum() + 2))
    read = task_of({"train": str(tmp_path / "train.csv")}).read(str(tmp_path / "train.csv"))
    assert np.array_equal(read.questions, made.questions)
    assert np.array_equal(read.answers, made.answers)


QUESTION, ANSWER = "S G" + " " * 6, "SoG" + " " * 6


@pytest.mark.parametrize(
    ("question", "answer", "says"),
    [
        ("S S" + " " * 6, ANSWER, "row 2: the question has not one S"),
        ("S  " + " " * 6, ANSWER, "row 2: the question has not one G"),
        ("SoG" + " " * 6, ANSWER, "row 2: the question holds an o"),
        (QUESTION, QUESTION, "row 2: the answer is no path from S to G"),
        (QUESTION, ANSWER[:-1], "row 2: 8 characters, not 9"),
        (QUESTION, ANSWER[:-1] + "x", "row 2: character 'x'"),
    ],
)
def test_bad_maze_rows_are_named(tmp_path, question, answer, says):
    path = tmp_path / "bad.csv"
    path.write_text(f"source,question,answer,rating\n-,{QUESTION},{ANSWER},3\n-,{question},{answer},3\n")
    with pytest.raises(DataError, match=says):
        MazeTask(name="maze", side=3, train="-", test="-").read(str(path))


def test_a_folder_without_splits_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"no train and no test there; give a folder with train\.csv"):
        splits_in(str(tmp_path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server on loopback that speaks as much of the hub as a download needs; holds one data set."""
    task = SudokuTask(box=2, generate=GenerateSudoku(puzzles=3, blanks=4))
    files = {}
    for split in ("train", "test"):
        write_split_csv(task, make_puzzles(task, split, 12), tmp_path / f"{split}.csv", "made here")
        files[f"/datasets/people/sudoku/resolve/main/{split}.csv"] = (tmp_path / f"{split}.csv").read_bytes()

    class Hub(BaseHTTPRequestHandler):
        def answer(self, with_body: bool) -> None:
            content = files.get(self.path)
            self.send_response(200 if content is not None else 404)
            if content is not None:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
            else:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if with_body:
                self.wfile.write(content or b"")

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    sources._asked.cache_clear()
    yield
    sources._asked.cache_clear()
    server.shutdown()
    server.server_close()


def test_a_name_of_the_hub(hub):
    task = SudokuTask(box=2, data="people/sudoku")
    assert load_task(task, 1).splits["train"].questions.shape == (12, 4, 4)
    assert set(task.identity()) == {"box", "train", "test"}
    with pytest.raises(
        DataError,
        match=r"people/none: no such folder, and the Hugging Face hub gave no train\.csv .*404.*; mend the name",
    ):
        splits_in("people/none")


def test_a_hub_out_of_reach_is_asked_once_without_a_word(tmp_path, monkeypatch, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    asked = []
    answer = huggingface_hub.get_hf_file_metadata
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **b: asked.append(a) or answer(*a, **b))
    for _ in range(3):
        with pytest.raises(DataError) as error:
            splits_in("people/unreachable")
        line = str(error.value)
        assert line.startswith(
            "people/unreachable: no such folder, and the Hugging Face hub cannot be reached from here ("
        )
        assert line.endswith("); where it can: rrm data build people/unreachable FOLDER, then give that FOLDER")
    assert len(asked) == 1
    assert capfd.readouterr() == ("", "")


def test_what_the_hub_gave_once_is_there_without_it(hub, monkeypatch):
    files = splits_in("people/sudoku")
    sources._asked.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}")
    assert splits_in("people/sudoku") == files


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_a_validation_split_by_any_of_its_names(name, tmp_path):
    """nano-trm's scripts write val.csv; without one, the test puzzles would be halved."""
    for number, split in enumerate(("train", name, "test")):
        task = SudokuTask(box=2, generate=GenerateSudoku(puzzles=6, blanks=6, seed=number))
        kind: Split = "train" if split == "train" else "test" if split == "test" else "validation"
        write_split_csv(task, make_puzzles(task, kind, 6), tmp_path / f"{split}.csv", source="-")
    task = SudokuTask(box=2, data=str(tmp_path))
    data = load_task(task, 6)
    assert [len(data.splits[split]) for split in ("train", "validation", "test")] == [6, 6, 6]
    assert set(task.identity()) == {"box", "train", "validation", "test"}
    processed = tmp_path / "processed"
    list(build_processed(task_of(task.files), processed, subsample_size=None, num_aug=0, aug=False, seed=0))
    (processed / "validation").rename(processed / name)
    assert len(load_task(SudokuTask(box=2, data=str(processed)), 6).splits["validation"]) == 6
    (tmp_path / ("val.csv" if name != "val" else "valid.csv")).write_text("")
    with pytest.raises(DataError, match=r"are both the validation split; keep one of them"):
        SudokuTask(box=2, data=str(tmp_path)).identity()


def test_all_arrays_are_part_of_the_digest(small):
    task = SudokuTask(box=2, data=str(small))
    before = task.identity()
    assert set(before) >= {"train", "test"}
    for name in ARRAYS:
        copy = small.parent / name
        shutil.copytree(small, copy)
        assert SudokuTask(box=2, data=str(copy)).identity() == before
        path = copy / "train" / f"all__{name}.npy"
        np.save(path, np.load(path).astype(np.int16))
        assert SudokuTask(box=2, data=str(copy)).identity() != before
