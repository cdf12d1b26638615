"""Detection of objects: COCO's files and scores, a detector of the user's."""
