import pytest

from mixreorg.errors import MixreorgError
from mixreorg.text.class_list import ClassName, flatten_phrases, parse_class_list


def test_text_with_synonyms_and_stray_space():
    classes = parse_class_list("  dog , cat = cat |  small   kitten,grass\n")
    assert classes == (ClassName("dog"), ClassName("cat", ("cat", "small kitten")), ClassName("grass"))
    assert classes[0].phrases == ("dog",)
    assert flatten_phrases(classes) == (("dog", "cat", "small kitten", "grass"), (0, 1, 1, 2))


def test_the_name_is_a_phrase_only_where_it_is_listed():
    assert parse_class_list("tvmonitor=monitor|screen")[0].phrases == ("monitor", "screen")


def test_sequence_of_text_and_class_names_keeps_commas():
    classes = parse_class_list(["door, double", ClassName("cat", ("kitten",)), "sky=blue sky"])
    assert [item.name for item in classes] == ["door, double", "cat", "sky"]


@pytest.mark.parametrize("as_path", [True, False])
def test_file_with_one_class_per_line(tmp_path, as_path):
    path = tmp_path / "my classes.txt"
    path.write_bytes("\ufeffdog\r\n\r\n# a comment\r\n  cat=cat|kitten\r\nchien, été\r\n".encode())
    classes = parse_class_list(path if as_path else f"@{path}")
    assert [item.name for item in classes] == ["dog", "cat", "chien, été"]
    assert classes[1].phrases == ("cat", "kitten")


def test_equal_names_in_other_unicode_forms_are_one_name():
    assert ClassName("cafe\u0301") == ClassName("café")
    with pytest.raises(MixreorgError, match="listed twice"):
        parse_class_list(["cafe\u0301", "CAFÉ"])


def test_background_is_an_ordinary_name_and_rejected_only_as_a_duplicate():
    assert parse_class_list("background, dog")[0] == ClassName("background")
    with pytest.raises(MixreorgError, match="'Background' is listed twice"):
        parse_class_list("background, dog, Background")


def test_a_thousand_classes_and_any_script():
    assert len(parse_class_list([f"class {index}" for index in range(1000)])) == 1000
    assert parse_class_list("犬, قطة, 🐕‍🦺")[2].name == "🐕‍🦺"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", "class list is empty"),
        ("  \n ", "class list is empty"),
        ([], "class list is empty"),
        ("dog,,cat", r"entry 2 .*has no name"),
        ("dog, cat,", r"entry 3 .*has no name"),
        ("dog, =cat", r"entry 2 .*has no name"),
        (["dog", "  "], r"entry 2 .*has no name"),
        ("cat=", r"entry 1 .*phrase of class 'cat' is empty"),
        ("cat=cat||kitten", r"phrase of class 'cat' is empty"),
        ("cat=kitten|Kitten", "phrase 'Kitten' twice"),
        ("dog, cat, DOG", "class 'DOG' is listed twice"),
        ("cat=cat|pet, dog=dog|Pet", "'Pet' belongs to both 'cat' and 'dog'"),
        ("cat, kitten=kitten|cat", "'cat' belongs to both 'cat' and 'kitten'"),
        ("dog, c\x07at", r"entry 2 .*control character"),
        ("dog\x00", "control character"),
        ("d\udcffg", "control character"),
        ("x" * 201, "201 characters; at most 200"),
        ("a=" + "x" * 201, "201 characters; at most 200"),
        (["dog", 3], "entry 2 of the class list is a int"),
        ({"cat": ["kitten"]}, r"cannot be a dict; give text or a list, for example \['dog', 'cat=cat|kitten'\]"),
        ({"dog", "cat"}, "cannot be a set; give text or a list"),
    ],
)
def test_clear_errors(classes, message):
    with pytest.raises(MixreorgError, match=message):
        parse_class_list(classes)


def test_the_longest_allowed_name_is_accepted():
    assert len(parse_class_list("x" * 200)[0].name) == 200


def test_file_errors_name_the_file_and_the_line(tmp_path):
    path = tmp_path / "classes.txt"
    with pytest.raises(MixreorgError, match=r"cannot read the class list .*classes\.txt"):
        parse_class_list(f"@{path}")
    with pytest.raises(MixreorgError, match="cannot read the class list"):
        parse_class_list(tmp_path)
    with pytest.raises(MixreorgError, match="cannot read the class list"):
        parse_class_list("@a\x00b")
    path.write_text("# nothing\n\n")
    with pytest.raises(MixreorgError, match=r"classes\.txt names no class"):
        parse_class_list(path)
    path.write_text("dog\n\n=cat\n")
    with pytest.raises(MixreorgError, match=r"classes\.txt, line 3"):
        parse_class_list(path)
    path.write_bytes(b"d\xffg\n")
    with pytest.raises(MixreorgError, match="not UTF-8"):
        parse_class_list(path)
