"""The folders of the official data sets, as their archives unpack and as other tools arrange them."""

from mixreorg.eval.benchmarks.layout import Layout

VOC = Layout(
    folders=(".", "VOC2012", "VOCdevkit/VOC2012"),
    photos=("JPEGImages/{stem}.jpg",),
    lists=("ImageSets/Segmentation/{split}.txt",),
    tree="VOCdevkit/VOC2012 with JPEGImages, SegmentationClass and ImageSets/Segmentation",
    source="VOCtrainval_11-May-2012.tar on host.robots.ox.ac.uk/pascal/VOC/voc2012",
    traps=(
        ("VOC2007", "this is VOC 2007; VOC 2012 is meant"),
        ("VOCdevkit/VOC2007", "this is VOC 2007; VOC 2012 is meant"),
    ),
)

CONTEXT = Layout(
    folders=(".", "VOC2010", "VOCdevkit/VOC2010"),
    photos=("JPEGImages/{stem}.jpg",),
    lists=("ImageSets/SegmentationContext/{split}.txt", "ImageSets/Main/{split}.txt"),
    tree="VOCdevkit/VOC2010 with JPEGImages and ImageSets/Main, and the folder trainval of the .mat files in it",
    source=(
        "VOCtrainval_03-May-2010.tar on host.robots.ox.ac.uk/pascal/VOC/voc2010, and trainval.tar.gz on "
        "cs.stanford.edu/~roozbeh/pascal-context"
    ),
    traps=(
        (
            "59_context_labels",
            "59_context_labels orders the classes in another way; take the .mat files of trainval.tar.gz",
        ),
        ("33_context_labels", "33_context_labels has other classes; take the .mat files of trainval.tar.gz"),
    ),
)

COCO = Layout(
    folders=(".", "coco", "COCO", "coco2017", "coco_stuff164k"),
    photos=("images/{split}/{stem}.jpg", "{split}/{stem}.jpg"),
    splits={"train": "train2017", "val": "val2017"},
    tree=(
        "coco with val2017 (or images/val2017), and stuffthingmaps/val2017 (or annotations/val2017) or "
        "annotations/instances_val2017.json"
    ),
    source=(
        "val2017.zip and annotations_trainval2017.zip on cocodataset.org, and stuffthingmaps_trainval2017.zip on "
        "github.com/nightrome/cocostuff"
    ),
    traps=(
        (
            "annotations/stuff_val2017_pixelmaps",
            "the pixel maps of the stuff task lack the things; take stuffthingmaps_trainval2017.zip",
        ),
        ("images/val2014", "this is COCO 2014; val2017 is meant"),
        ("val2014", "this is COCO 2014; val2017 is meant"),
    ),
)

ADE = Layout(
    folders=(".", "ADEChallengeData2016", "ade/ADEChallengeData2016"),
    photos=("images/{split}/{stem}.jpg",),
    splits={"train": "training", "val": "validation"},
    tree="ADEChallengeData2016 with images/validation and annotations/validation",
    source="ADEChallengeData2016.zip on sceneparsing.csail.mit.edu",
    traps=tuple(
        (pattern, "this is the full ADE20K; SceneParse150 is meant: take ADEChallengeData2016.zip")
        for pattern in ("ADE20K_20*", "images/ADE", "images/*/*/*_seg.png", "images/*/*/*/*_seg.png")
    ),
)

CITYSCAPES = Layout(
    folders=(".", "cityscapes", "Cityscapes"),
    photos=("leftImg8bit/{split}/{stem}_leftImg8bit.png",),
    tree="cityscapes with leftImg8bit/val/CITY and gtFine/val/CITY",
    source="leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip on cityscapes-dataset.com",
    traps=(("gtCoarse", "gtCoarse has coarse polygons; take gtFine_trainvaltest.zip"),),
)
