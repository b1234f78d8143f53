"""Methods of distillation: objectives, student-written data, and what the teacher releases."""
